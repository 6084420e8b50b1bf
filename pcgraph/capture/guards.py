"""Under which conditions a captured graph may be used again. Checked at every call, in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.utils import parametrize
from torch.overrides import _get_current_function_mode_stack

from .pystate import PythonState
from .questions import Questions
from .regions import hooks_around
from .tensor_guards import TensorMetadata


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
    return [*reads, torch.get_default_dtype, torch.backends.mha.get_fastpath_enabled]


def _read_casts() -> list[Callable[[], Any]]:
    reads: list[Callable[[], Any]] = []
    for device in ("cpu", "cuda"):
        reads += [partial(torch.is_autocast_enabled, device), partial(torch.get_autocast_dtype, device)]
    return reads


_SETTINGS, _CASTS = _read_settings(), _read_casts()


def torch_state() -> list[Any]:
    """The global settings of torch that decide which operations a model runs."""
    state = [read() for read in _SETTINGS]
    state += [hooks_around(), parametrize._cache_enabled]
    if torch._C._is_any_autocast_enabled():
        state += [read() for read in _CASTS]
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
        self._metadata = TensorMetadata(tensors)
        self._torch_state = torch_state()
        self._questions = questions

    @property
    def asks(self) -> bool:
        """Whether the values of the inputs matter."""
        return self._questions is not None

    def hold(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Whether nothing that the captured run depended on has changed, and these inputs would be read alike."""
        same = self._metadata.same() and torch_state() == self._torch_state and self._state.unchanged()
        return same and (self._questions is None or self._questions.same_answers(inputs))

    def broken(self) -> list[str]:
        """What has changed since, for people."""
        found = []
        if self._metadata.differs():
            found.append("the shape, type, device or requires_grad of the model's tensors")
        if torch_state() != self._torch_state:
            found.append("torch's settings (autocast, default dtype, backends, modes)")
        return found + self._state.changes()
