"""Copies of nested arguments whose tensors keep their layout and the memory that they share with one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Change = Callable[[Tensor], Any]


def replace_tensors(tree: Any, change: Change) -> Any:
    """The same nest of lists, tuples, dicts and slices, with every tensor replaced.

    >>> replace_tensors([torch.ones(2), (slice(torch.zeros(()), 3), "text")], lambda t: t.sum().item())
    [2.0, (slice(0.0, 3, None), 'text')]
    """
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: replace_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, slice):
        return slice(*(replace_tensors(part, change) for part in (tree.start, tree.stop, tree.step)))
    if isinstance(tree, list | tuple):
        parts = [replace_tensors(part, change) for part in tree]
        if isinstance(tree, list):
            return parts
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree


def tensors_of(tree: Any) -> list[Tensor]:
    """The tensors of a nest in order; one that stands at two places is listed twice."""
    found: list[Tensor] = []
    replace_tensors(tree, found.append)
    return found


def differentiable(tensor: Tensor) -> bool:
    """Whether a tensor of this type can need a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


class Copies:
    """Fresh leaves: same values, sizes, strides and ``requires_grad``; what shared memory or an identity still does."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[Tensor, Tensor]] = {}  # the original is kept: its id must stay its own
        self._memory: dict[int, torch.UntypedStorage] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self._tensors:
            fresh = self._fresh(tensor.detach()).requires_grad_(tensor.requires_grad)
            self._tensors[id(tensor)] = (tensor, fresh)
        return self._tensors[id(tensor)][1]

    def _fresh(self, tensor: Tensor) -> Tensor:
        if type(tensor) is not Tensor or tensor.layout is not torch.strided or tensor.is_conj() or tensor.is_neg():
            return tensor.clone()
        memory = tensor.untyped_storage()
        if memory._cdata not in self._memory:
            self._memory[memory._cdata] = memory.clone()
        fresh = torch.empty(0, dtype=tensor.dtype)
        return fresh.set_(self._memory[memory._cdata], tensor.storage_offset(), tensor.size(), tensor.stride())


def copied(tree: Any) -> Any:
    """A nest of arguments with fresh tensors (see `Copies`)."""
    return replace_tensors(tree, Copies())
