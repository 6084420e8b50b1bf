"""Checkpointed regions: what ``torch.utils.checkpoint`` would forget after the prediction and compute again to learn.

Autograd's hooks on saved tensors are how it does that. pcgraph saves tensors in its own way, so that other hooks would
have no effect; those that change nothing (offloading to the CPU) may be passed over, any other is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils.checkpoint import _CachedTorchDispatchMode, _CachingTorchDispatchMode, _checkpoint_hook

from ..errors import CaptureError
from ..graph.vertex import Checkpoint

_SELECTIVE = (_CachingTorchDispatchMode, _CachedTorchDispatchMode)


class Regions:
    """The checkpoints that are running, outermost first."""

    def __init__(self) -> None:
        self._count = 0
        self._running: list[Checkpoint] = []

    @property
    def seen(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    @property
    def current(self) -> Checkpoint | None:
        """The outermost one: it forgets, and computes again, everything inside."""
        return self._running[0] if self._running else None

    @contextmanager
    def inside(self, keeps_random_state: bool) -> Iterator[None]:
        """Within a checkpointed function."""
        self._enter(keeps_random_state)
        try:
            yield
        finally:
            self._running.pop()

    def _enter(self, keeps_random_state: bool) -> None:
        self._running.append(Checkpoint(self._count, keeps_random_state))
        self._count += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch for hooks on saved tensors, until the end of the run."""
        enter, leave = saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__
        regions = self

        def entered(hooks: Any) -> Any:
            if not _observed():
                return enter(hooks)
            if isinstance(hooks, _checkpoint_hook):
                regions._enter(_keeps_random_state(hooks))
            else:
                refuse_hooks(hooks)
            return enter(hooks)

        def left(hooks: Any, *error: Any) -> Any:
            if isinstance(hooks, _checkpoint_hook) and _observed():
                regions._running.pop()
            return leave(hooks, *error)

        saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__ = entered, left  # type: ignore[method-assign]
        try:
            yield
        finally:
            saved_tensors_hooks.__enter__, saved_tensors_hooks.__exit__ = enter, leave  # type: ignore[method-assign]


def _observed() -> bool:
    """Whether the caller belongs to the run that is captured: the class of hooks is patched for all threads."""
    return bool(torch._C._len_torch_dispatch_stack())


def refuse_hooks(hooks: Any) -> None:
    """Raise for hooks on saved tensors that may change them."""
    if not isinstance(hooks, save_on_cpu):
        raise CaptureError(
            "hooks on saved tensors (torch.autograd.graph.saved_tensors_hooks) have no effect on a compiled network",
            hint="leave them out: `pcn.watch()` shows the errors, torch.utils.checkpoint saves memory",
        )


def hooks_around() -> str | None:
    """The name of a hook on saved tensors that is active where a network is called and that may change them."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    if hooks is None or hooks[0].__module__ == "torch.utils.checkpoint":
        return None
    name = str(getattr(hooks[0], "__qualname__", hooks[0]))
    return None if name.startswith("save_on_cpu.") else name


def refuse_hooks_around() -> None:
    """Raise where a network is called inside of hooks on saved tensors that may change them."""
    around = hooks_around()
    if around is not None:
        raise CaptureError(
            f"hooks on saved tensors ({around}) around the call have no effect on a compiled network",
            hint="call it outside of them",
        )
    if any(isinstance(mode, _SELECTIVE) for mode in _get_current_dispatch_mode_stack()):
        raise CaptureError(
            "a selective checkpoint around a network cannot tell its operations from those of the capture",
            hint="leave out context_fn, or compile a module that calls torch.utils.checkpoint itself",
        )


def _keeps_random_state(hooks: _checkpoint_hook) -> bool:
    frame = _closed_over(hooks.pack_hook, "frame")
    return bool(_closed_over(frame.recompute_fn, "preserve_rng_state"))


def _closed_over(function: Any, name: str) -> Any:
    return function.__closure__[function.__code__.co_freevars.index(name)].cell_contents
