"""Nothing is timed before it was held against eager backprop: what a step did, and how far apart two steps are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..measure import same_bits
from .models import Workload

CLOSE = 1e-2
"""Largest distance at which a fusing compiler counts as right: it sums in another order, and where that tips a ReLU
or the place of a maximum, a whole path changes. Wrong gradients stand at 0.1 to 1."""
EQUAL = 1e-9
"""The same in float64, where rounding is out of the way."""

Learn = Callable[[], tuple[Any, Tensor]]


class NotRun(Exception):
    """A contender is left out, and why."""


@dataclass
class Seen:
    """What a step left behind: tensors by name (None for a gradient that is not there)."""

    loss: Tensor
    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor | None]
    buffers: dict[str, Tensor]
    random: Tensor

    def items(self) -> Iterator[tuple[str, Tensor | None]]:
        yield "the loss", self.loss
        yield from self.outputs.items()
        yield from ((f"the gradient of {name}", g) for name, g in self.gradients.items())
        yield from ((f"buffer {name}", b) for name, b in self.buffers.items())
        yield "the random state", self.random


def see(work: Workload, learn: Learn, seed: int) -> Seen:
    """Run `learn` once, from a known random state, and put buffers and gradients back."""
    before = {name: buffer.clone() for name, buffer in work.model.named_buffers()}
    torch.manual_seed(seed)
    output, loss = learn()
    seen = Seen(
        loss.detach(),
        {f"output {k}": t.detach() for k, t in enumerate(tree_leaves(output)) if isinstance(t, Tensor)},
        {name: p.grad for name, p in work.model.named_parameters()},
        {name: buffer.clone() for name, buffer in work.model.named_buffers()},
        torch.get_rng_state(),
    )
    for parameter in work.model.parameters():
        parameter.grad = None
    with torch.no_grad():
        for name, buffer in work.model.named_buffers():
            buffer.copy_(before[name])
    return seen


def bitwise(found: Seen, wanted: Seen) -> dict[str, Any]:
    """Everything that both have, to the bit.

    Raises:
        NotRun: something differs.
    """
    expected = dict(wanted.items())
    for name, one in found.items():
        two = expected[name]
        if (one is None) != (two is None) or (one is not None and two is not None and not same_bits(one, two)):
            raise NotRun(f"not exact: {name} is not backprop's to the bit")
    return {"kind": "bitwise", "distance": 0.0, "bound": 0.0}


def close(found: Seen, wanted: Seen, bound: float, kind: str) -> dict[str, Any]:
    """Gradients, loss and floating point buffers within a relative `bound`; see `distance`.

    Raises:
        NotRun: they are further apart.
    """
    floats = {name for name, b in wanted.buffers.items() if b.is_floating_point()}
    gap = max(
        distance(found.gradients, wanted.gradients),
        distance({"": found.loss}, {"": wanted.loss}),
        distance({n: found.buffers[n] for n in floats}, {n: wanted.buffers[n] for n in floats}),
    )
    if not gap <= bound:
        raise NotRun(f"wrong: {gap:.1e} from backprop, more than {bound:.0e}")
    return {"kind": kind, "distance": gap, "bound": bound}


def distance(found: Mapping[str, Tensor | None], wanted: Mapping[str, Tensor | None]) -> float:
    """Largest relative distance of a tensor from the one wanted, in the 2-norm.

    It is relative to the tensor's own norm plus a thousandth of all tensors' norm together, since what is 0 but for
    rounding (a bias in front of a batch norm) has no digits to compare.
    """
    here = {name: t.double() for name, t in wanted.items() if t is not None}
    if here.keys() != {name for name, t in found.items() if t is not None}:
        return inf
    whole = sum(t.square().sum().item() for t in here.values()) ** 0.5
    gaps = []
    for name, t in here.items():
        gap = (found[name].double() - t).norm().item()  # type: ignore[union-attr]
        if not isfinite(gap):  # which max() below could pass over
            return inf
        gaps.append(gap / (t.norm().item() + 1e-3 * whole) if gap else gap)
    return max(gaps, default=0.0)


def cosine(found: Mapping[str, Tensor | None], wanted: Mapping[str, Tensor | None]) -> float:
    """Of the angle between two whole gradients."""
    pairs = [(one, wanted[name]) for name, one in found.items()]
    both = [(one.double(), two.double()) for one, two in pairs if one is not None and two is not None]
    product = sum((one * two).sum().item() for one, two in both)
    lengths = [sum(t.square().sum().item() for t in side) ** 0.5 for side in zip(*both, strict=True)]
    return product / (lengths[0] * lengths[1]) if lengths and all(lengths) else 0.0
