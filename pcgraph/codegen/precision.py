"""Autocast is part of a vertex; around a compiled program it must be off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

DEVICES = ("cpu", "cuda", "mps", "xpu")


def settings() -> tuple[Any, ...]:
    """The global settings of torch that decide into which calls an operation falls apart."""
    backends = torch.backends
    return (
        torch.get_default_dtype(),
        torch._C._get_deterministic_algorithms(),
        backends.mkldnn.enabled,
        torch._C._get_cudnn_enabled(),
        torch._C._get_flash_sdp_enabled(),
        torch._C._get_mem_efficient_sdp_enabled(),
        torch._C._get_math_sdp_enabled(),
        torch._C._get_cudnn_sdp_enabled(),
    )


@contextmanager
def without_autocast() -> Iterator[None]:
    """Turn autocast off for every device.

    A vertex that was captured under autocast holds its casts. The calls below it ran with autocast already applied,
    so they must not be cast a second time, neither while tracing nor when the program runs.
    """
    with ExitStack() as stack:
        for device in DEVICES:
            if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
