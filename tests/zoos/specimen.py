"""One model of a library: how it is built, fed and given a loss."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]
Loss = Callable[[Any], Tensor]

_PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)


def seed_all(seed: int) -> None:
    """Seed every generator that a model may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def leaves(tree: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every leaf of an output with its path; opens containers, dataclasses and objects such as caches.

    >>> list(leaves({"a": [1, None], "b": (2.0,)}))
    [('.a.0', 1), ('.a.1', None), ('.b.0', 2.0)]
    """
    if isinstance(tree, (Tensor, *_PLAIN)) or depth > 8:
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}", depth + 1)
    elif isinstance(tree, (list, tuple, set, frozenset)):
        for k, value in enumerate(tree):
            yield from leaves(value, f"{path}.{k}", depth + 1)
    elif dataclasses.is_dataclass(tree) or hasattr(tree, "__dict__"):
        yield f"{path}.class", type(tree).__name__
        for key, value in vars(tree).items():
            if not callable(value):
                yield from leaves(value, f"{path}.{key}", depth + 1)
    else:
        yield path, type(tree).__name__


def random_weighting(output: Any) -> Tensor:
    """Sum over all floating outputs that learn of the mean of ``w * y``, with fixed normal ``w``."""
    generator = torch.Generator().manual_seed(0)
    total: Tensor | None = None
    for _, y in leaves(output):
        if not isinstance(y, Tensor) or not y.requires_grad or y.numel() == 0:
            continue
        y = torch.view_as_real(y) if y.is_complex() else y
        weight = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)
        term = (weight * y.masked_fill(~y.isfinite(), 0)).mean()
        total = term if total is None else total + term
    if total is None:
        raise RuntimeError("no output needs a gradient")
    return total


def own_loss(output: Any) -> Tensor:
    """The loss that the model computed itself (``output.loss``), else `random_weighting`."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return loss.sum() if isinstance(loss, Tensor) and loss.requires_grad else random_weighting(output)


def sum_of_losses(output: Mapping[str, Tensor]) -> Tensor:
    """For detectors in training mode, which return a dictionary of losses."""
    losses = list(output.values())
    return torch.stack([loss for loss in losses if loss.requires_grad]).sum()


@dataclass(frozen=True)
class Specimen:
    """A model of a zoo.

    Attributes:
        library: whose model it is.
        name: unique in the library.
        make: builds the model; run seeded.
        feed: makes the arguments of a call, as positional and keyword arguments; run seeded, once for each call.
        loss: output -> scalar.
        simpler: makes of the model what is tried where pcgraph refuses the model as it is.
        package: whose version is told, where `library` is no package.
        batch: makes the arguments for a batch size, as `feed` does; where it is given, the model is also trained with
            optimizers, evaluated and simulated (`tests.zoos.trained`).
    """

    library: str
    name: str
    make: Callable[[], nn.Module]
    feed: Callable[[], Call]
    loss: Loss = own_loss
    simpler: Callable[[nn.Module], nn.Module] | None = None
    package: str = ""
    batch: Callable[[int], Call] | None = None

    def build(self) -> nn.Module:
        """The model in training mode, every constant parameter disturbed.

        Libraries begin with zero heads, zero scales and zero biases. Behind a zero no gradient can be told from
        another, so that nothing would be tested.
        """
        seed_all(sum(map(ord, self.name)))
        model = self.make().train()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point() and parameter.numel() > 1 and _constant(parameter):
                    parameter.add_(torch.randn_like(parameter), alpha=0.02)
        return model

    def call(self, seed: int, *, needs_grad: bool = True, size: int = 0) -> Call:
        """Fresh arguments; with `needs_grad` every floating tensor among them asks for a gradient."""
        seed_all(seed)
        args, kwargs = self.batch(size) if self.batch is not None and size else self.feed()
        for _, leaf in leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                leaf.requires_grad_(needs_grad)
        return args, kwargs


def _constant(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all())
