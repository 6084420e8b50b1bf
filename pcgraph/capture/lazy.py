"""Lazy modules: their parameters get shapes before the capture, as the module's own first call would give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._pytree import tree_map_only

from ..errors import CaptureError


def materialise(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Run a model with uninitialised parameters once, without gradients, and undo all but their initialisation.

    Raises:
        CaptureError: the model draws random numbers before it initialises its last lazy module; a first call would
            mix both.
    """
    lazy = [m for m in model.modules() if isinstance(m, LazyModuleMixin) and m.has_uninitialized_params()]
    if not lazy:
        return
    state = _random_state()
    kept = [(b, b.clone()) for b in model.buffers() if not torch.nn.parameter.is_lazy(b)]

    def before(module: torch.nn.Module, _: Any) -> None:
        if not _equal(_random_state(), state):
            names = {id(m): name for name, m in model.named_modules()}
            raise CaptureError(
                f"random numbers are drawn before the lazy module {names[id(module)]!r} is initialised",
                hint="run the model once on an example before its first call as a network",
            )

    def after(module: torch.nn.Module, _: Any) -> None:
        state[:] = _random_state()
        kept.extend((buffer, buffer.clone()) for buffer in module.buffers(recurse=False))

    handles = [m.register_forward_pre_hook(before, prepend=True) for m in lazy]
    handles += [m.register_forward_pre_hook(after) for m in lazy]
    try:
        with torch.no_grad():
            model(*tree_map_only(torch.Tensor, torch.clone, tuple(args)), **_cloned(kwargs))
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        torch.set_rng_state(state[0])  # after the last initialisation: where the module's own call would go on
        if state[1:]:
            torch.cuda.set_rng_state_all(state[1:])


def _cloned(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = tree_map_only(torch.Tensor, torch.clone, dict(kwargs))
    return result


def _random_state() -> list[torch.Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def _equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))
