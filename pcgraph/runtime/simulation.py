"""The whole network of a call, simulated: what `PCNetwork.simulate` does."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_map_only

from ..dynamics import ZIL, Rule, Trace, simulate
from ..errors import PCGraphError
from .step import squared_loss
from .surroundings import refuse_surroundings

if TYPE_CHECKING:
    from .network import PCNetwork


_OPTIONS = frozenset(inspect.signature(simulate).parameters) - {"graph", "values", "loss", "rule", "update"}


def simulation(
    network: PCNetwork,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    target: Any,
    loss: Callable[[Any], torch.Tensor] | None,
    rule: Rule | None,
    dtype: torch.dtype | None,
    options: dict[str, Any],
) -> Trace:
    """See `PCNetwork.simulate`; the network is in `dtype` already, the arguments are not."""
    clamped = any(options.get(name) for name in ("clamp", "free", "mask"))
    if (target is not None and loss is not None) or (target is None and loss is None and not clamped):
        raise PCGraphError(
            "simulate needs a target or a loss, one of them",
            hint="pass target=y, or loss=function, or clamp value nodes: options={'clamp': {...}}",
        )
    if dtype is not None:

        def cast(t: torch.Tensor) -> torch.Tensor:
            return t.detach().to(dtype).requires_grad_(t.requires_grad) if t.is_floating_point() else t

        args, kwargs, target = tree_map_only(torch.Tensor, cast, (args, kwargs, target))
    if options.get("free") or options.get("mask"):  # inputs can be among them, and move by their error
        args, kwargs = tree_map_only(torch.Tensor, _movable, (args, kwargs))
    with torch.enable_grad():
        refuse_surroundings()
        given = network._signatures.of(args, kwargs)
        capture = network._find(given) or network._capture(args, kwargs, given.signature)
    compiled = capture.compiled
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise PCGraphError(f"options {unknown} are not known", hint=f"choose from {', '.join(sorted(_OPTIONS))}")
    values = dict(zip(compiled.program.externals, compiled.binding.values(given.tensors), strict=True))
    objective = squared_loss(target) if target is not None else loss
    return simulate(
        compiled.program.graph,
        values,
        loss=None if objective is None else lambda outputs: objective(compiled.binding.rebuild(outputs)),
        rule=rule if rule is not None else ZIL(),
        **options,
    )


def _movable(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that collects an error."""
    return tensor.detach().requires_grad_() if tensor.is_floating_point() or tensor.is_complex() else tensor
