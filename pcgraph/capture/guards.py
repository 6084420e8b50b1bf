"""Under which conditions a captured graph may be used again. Checked at every call, in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.overrides import _get_current_function_mode_stack

from .pystate import PythonState
from .questions import Questions
from .regions import hooks_around


def _read_settings() -> list[Callable[[], Any]]:
    """Functions of torch's, in C, that read one global setting each; made once, since they are called at every call."""
    c = torch._C
    names = (
        "_get_deterministic_algorithms _get_mkldnn_enabled _get_cudnn_enabled _get_flash_sdp_enabled "
        "_get_mem_efficient_sdp_enabled _get_math_sdp_enabled _get_cudnn_sdp_enabled _len_torch_dispatch_stack "
        "_len_torch_function_stack get_num_threads is_anomaly_enabled _get_deterministic_algorithms_warn_only "
        "_get_cudnn_benchmark _get_cudnn_deterministic _get_deterministic_fill_uninitialized_memory "
        "is_autocast_cache_enabled"
    ).split()
    reads = [getattr(c, name) for name in names]
    for device in ("cpu", "cuda"):
        reads += [partial(torch.is_autocast_enabled, device), partial(torch.get_autocast_dtype, device)]
    return [*reads, torch.get_default_dtype, torch.backends.mha.get_fastpath_enabled]


_SETTINGS = _read_settings()


def torch_state() -> list[Any]:
    """The global settings of torch that decide which operations a model runs."""
    state = [read() for read in _SETTINGS]
    state.append(hooks_around())
    if torch._C._len_torch_function_stack():
        state.append([id(mode) for mode in _get_current_function_mode_stack()])
    return state


class Guards:
    """Python state, torch's settings, and the metadata of the model's tensors.

    The signature of the inputs is not looked at here: programs are filed by it.

    Args:
        state: snapshots of everything Python that the run read.
        tensors: the model's parameters and state; ``.to()`` and ``requires_grad_()`` change their metadata in place.
        questions: what Python read from tensors, or None.
    """

    def __init__(self, state: PythonState, tensors: Sequence[torch.Tensor], questions: Questions | None = None) -> None:
        self._state = state
        self._tensors = tuple(tensors)
        self._metadata = _metadata(self._tensors)
        self._torch_state = torch_state()
        self._quick = _quick(self._tensors)
        self._questions = questions

    def hold(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Whether nothing that the captured run depended on has changed, and these inputs would be read alike."""
        same = _metadata(self._tensors) == self._metadata if self._quick is None else self._quick.check(*self._tensors)
        same = same and torch_state() == self._torch_state and self._state.unchanged()
        return same and (self._questions is None or self._questions.same_answers(inputs))

    def broken(self) -> list[str]:
        """What has changed since, for people."""
        found = []
        if _metadata(self._tensors) != self._metadata:
            found.append("the shape, type, device or requires_grad of the model's tensors")
        if torch_state() != self._torch_state:
            found.append("torch's settings (autocast, default dtype, backends, modes)")
        return found + self._state.changes()


def _quick(tensors: Sequence[torch.Tensor]) -> Any:
    """Torch's own comparison of tensor metadata, which takes a sixth of the time; None where it does not apply."""
    guards = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    plain = all(t.layout is torch.strided and not t.is_nested for t in tensors)
    if guards is None or not plain or not tensors:
        return None
    return guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)


def _metadata(tensors: Sequence[torch.Tensor]) -> tuple[list[Any], ...]:
    """One list per property: comparing lists of small objects is much cheaper than making a record per tensor."""
    return (
        [t.requires_grad for t in tensors],
        [t.dtype for t in tensors],
        [t.shape for t in tensors],
        [t.stride() if t.layout is torch.strided else None for t in tensors],
        [t.device for t in tensors],
    )
