"""Whether the tensors of a model still have the metadata that a captured graph was made for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .tensor_words import LAYOUT, TensorWords, readable


class TensorMetadata:
    """Shape, strides, dtype, device, requires_grad and class of tensors, as they were.

    Three ways, each only for what the one before leaves open: words of memory (`tensor_words`), torch's own guard in
    C++, and lists of properties.

    Args:
        tensors: in any order; ``.to()``, ``requires_grad_()`` and ``.data =`` change their metadata in place.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tuple(tensors)
        self._properties = _properties(self._tensors)
        self._guard = _guard(self._tensors)
        layout = LAYOUT if self._guard is not None else None
        told = [tensor for tensor in self._tensors if readable(tensor)] if layout is not None else []
        self._words = TensorWords(told, layout) if told and layout is not None else None
        # Words do not tell which modes are around, torch's guard does: one tensor of each kind is asked for.
        kinds = {torch._C._dispatch_keys(tensor).raw_repr(): tensor for tensor in told}
        left_out = {id(tensor) for tensor in told} - {id(tensor) for tensor in kinds.values()}
        self._others = tuple(tensor for tensor in self._tensors if id(tensor) not in left_out)
        self._others_guard = _guard(self._others)

    def same(self) -> bool:
        """Whether nothing has changed."""
        if self._words is not None and self._words.unchanged():
            return _checked(self._others_guard, self._others)
        if self._guard is None:
            return _properties(self._tensors) == self._properties
        if not _checked(self._guard, self._tensors):
            return False
        if self._words is not None:
            self._words.accept()  # there and back, or a word that does not matter
        return True

    def differs(self) -> bool:
        """Whether a property that a person would name has changed."""
        return _properties(self._tensors) != self._properties


def _checked(guard: Any, tensors: Sequence[torch.Tensor]) -> bool:
    return bool(guard.check(*tensors))


def _guard(tensors: Sequence[torch.Tensor]) -> Any:
    """Torch's own comparison of tensor metadata, which takes a sixth of the time; None where it does not apply."""
    guards = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
    plain = all(t.layout is torch.strided and not t.is_nested for t in tensors)
    if guards is None or not plain or not tensors:
        return None
    return guards.TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)


def _properties(tensors: Sequence[torch.Tensor]) -> tuple[list[Any], ...]:
    """One list per property: comparing lists of small objects is much cheaper than making a record per tensor."""
    return (
        [type(t) for t in tensors],
        [t.requires_grad for t in tensors],
        [t.dtype for t in tensors],
        [t.shape for t in tensors],
        [t.stride() if t.layout is torch.strided else None for t in tensors],
        [t.device for t in tensors],
    )
