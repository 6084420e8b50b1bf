"""Torch's settings that decide how kernels round: what is evaluated once more runs under those of its prediction.

Learning may run under others (a backward pass inside of an autocast region, another number of threads).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .precision import DEVICES

_C: Any = torch._C
Numerics = tuple[Any, ...]


def _autocast() -> tuple[bool, ...]:
    return tuple(torch.is_autocast_enabled(device) for device in DEVICES)


def _set_autocast(enabled: tuple[bool, ...]) -> None:
    for device, value in zip(DEVICES, enabled, strict=True):
        if torch.is_autocast_enabled(device) != value:
            torch.set_autocast_enabled(device, value)


def _deterministic() -> tuple[bool, bool]:
    return _C._get_deterministic_algorithms(), _C._get_deterministic_algorithms_warn_only()


def _set_deterministic(mode: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (_autocast, _set_autocast),
    (_deterministic, _set_deterministic),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (_C._get_mkldnn_enabled, _C._set_mkldnn_enabled),
    (_C._get_mkldnn_deterministic, _C._set_mkldnn_deterministic),
    (_C._get_cudnn_enabled, _C._set_cudnn_enabled),
    (_C._get_cudnn_benchmark, _C._set_cudnn_benchmark),
    (_C._get_cudnn_deterministic, _C._set_cudnn_deterministic),
    (_C._get_cudnn_allow_tf32, _C._set_cudnn_allow_tf32),
    (_C._get_flash_sdp_enabled, _C._set_sdp_use_flash),
    (_C._get_mem_efficient_sdp_enabled, _C._set_sdp_use_mem_efficient),
    (_C._get_math_sdp_enabled, _C._set_sdp_use_math),
    (_C._get_cudnn_sdp_enabled, _C._set_sdp_use_cudnn),
)


def numerics() -> Numerics:
    """The settings as they are."""
    return tuple(get() for get, _ in _SETTINGS)


def enter(inside: Numerics) -> Numerics | None:
    """Make the settings those of the prediction; return what they were, or None if they were the same."""
    outside = numerics()
    if outside == inside:
        return None
    _change(outside, inside)
    return outside


def enter_again(outside: Numerics | None, inside: Numerics) -> None:
    """`enter`, where it is known what was found the first time."""
    if outside is not None:
        _change(outside, inside)


def leave(outside: Numerics | None, inside: Numerics) -> None:
    """Put the settings back."""
    if outside is not None:
        _change(inside, outside)


def _change(before: Numerics, after: Numerics) -> None:
    for (_, put), old, new in zip(_SETTINGS, before, after, strict=True):
        if old != new:
            put(new)


@contextmanager
def numerics_kept() -> Iterator[None]:
    """Put the settings back where something fails while they are those of a prediction."""
    outside = numerics()
    try:
        yield
    except BaseException:
        _change(numerics(), outside)
        raise
