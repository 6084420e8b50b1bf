"""Under which conditions a captured graph may be used again. Checked at every call, in microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .pystate import PythonState


def torch_state() -> tuple[Any, ...]:
    """The global settings of torch that decide which operations a model runs."""
    backends = torch.backends
    return (
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        torch.get_default_dtype(),
        torch._C._get_deterministic_algorithms(),
        backends.mkldnn.enabled,
        torch._C._get_cudnn_enabled(),
        torch._C._get_flash_sdp_enabled(),
        torch._C._get_mem_efficient_sdp_enabled(),
        torch._C._get_math_sdp_enabled(),
    )


def tensor_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What a program depends on in an input tensor."""
    stride = tensor.stride() if tensor.layout is torch.strided else ()
    return (type(tensor), tensor.shape, stride, tensor.dtype, tensor.device, tensor.requires_grad, tensor.layout)


class Guards:
    """Python state, torch's settings, and the tensors that the graph reads by identity.

    The signature of the inputs is not looked at here: programs are filed by it.

    Args:
        state: snapshots of everything Python that the run read.
        tensors: parameters and state that the graph reads; their metadata is compared (``.to()`` and
            ``requires_grad`` change it in place).
    """

    def __init__(self, state: PythonState, tensors: Sequence[torch.Tensor]) -> None:
        self._state = state
        self._tensors = tuple(tensors)
        self._keys = [_owned_key(tensor) for tensor in self._tensors]
        self._torch_state = torch_state()

    def hold(self) -> bool:
        """Whether nothing that the captured run depended on has changed."""
        return (
            [_owned_key(tensor) for tensor in self._tensors] == self._keys
            and torch_state() == self._torch_state
            and self._state.unchanged()
        )

    def broken(self) -> list[str]:
        """What has changed since, for people."""
        found = []
        for tensor, key in zip(self._tensors, self._keys, strict=True):
            if _owned_key(tensor) != key:
                found.append(f"a tensor of shape {tuple(tensor.shape)} changed its metadata")
        if torch_state() != self._torch_state:
            found.append("torch's settings (autocast, default dtype, backends)")
        return found + self._state.changes()


def _owned_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (
        tensor.requires_grad,
        tensor.dtype,
        tensor.shape,
        tensor.device,
        tensor.layout is torch.strided and tensor.stride(),
    )
