"""Operators that look up and write elements by index."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .numbers import Number, number, positive
from .table import operator

_REDUCTION = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def from_front(index: Tensor, size: int) -> Tensor:
    """Indices counted from the front, as int64; negative ones count from the back."""
    index = index.long()
    return torch.where(index < 0, index + size, index)


@operator("Gather", scalars=(1,))
def gather(x: Tensor, index: Tensor | int, axis: int = 0) -> Tensor:
    """Slices of ``x`` along ``axis``: the shape of the index stands in the place of the axis."""
    if isinstance(index, int):
        return x.select(axis, index)
    axis = positive(axis, x.dim())
    picked = x.index_select(axis, from_front(index, x.size(axis)).reshape(-1))
    return picked if index.dim() == 1 else picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def gather_elements(x: Tensor, index: Tensor, axis: int = 0) -> Tensor:
    """One element per entry of the index."""
    return torch.gather(x, axis, from_front(index, x.size(axis)))


@operator("GatherND")
def gather_nd(x: Tensor, index: Tensor, batch_dims: int = 0) -> Tensor:
    """Slices of ``x`` by tuples of indices, the last dimension of ``index``."""
    index = index.long()
    batch = [
        torch.arange(size, device=x.device).reshape([-1 if d == q else 1 for d in range(index.dim() - 1)])
        for q, size in enumerate(x.shape[:batch_dims])
    ]
    return x[(*batch, *index.unbind(-1))]


@operator("Scatter", "ScatterElements")
def scatter_elements(x: Tensor, index: Tensor, updates: Tensor, axis: int = 0, reduction: str = "none") -> Tensor:
    """``x`` with elements replaced by (or reduced with) the updates."""
    index = from_front(index, x.size(axis))
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCTION[reduction])


@operator("ScatterND")
def scatter_nd(x: Tensor, index: Tensor, updates: Tensor, reduction: str = "none") -> Tensor:
    """``x`` with slices replaced by (or reduced with) the updates, at tuples of indices."""
    depth = index.size(-1)
    if reduction == "none":
        return x.index_put(tuple(index.long().unbind(-1)), updates) if depth else updates.reshape(x.shape)
    sizes = torch.tensor(x.shape[:depth], device=x.device)
    strides = torch.tensor([math.prod(x.shape[j + 1 : depth]) for j in range(depth)], device=x.device)
    places = (torch.where(index < 0, index + sizes, index).long() * strides).sum(-1).reshape(-1)
    inner = x.shape[depth:]
    flat = x.reshape(math.prod(x.shape[:depth]), *inner)
    rows = updates.reshape(-1, *inner)
    places = places.reshape(-1, *(1 for _ in inner)).expand_as(rows)
    return flat.scatter_reduce(0, places, rows, _REDUCTION[reduction]).reshape(x.shape)


@operator("TensorScatter")
def tensor_scatter(
    cache: Tensor, update: Tensor, write_indices: Tensor | None = None, axis: int = -2, mode: str = "linear"
) -> Tensor:
    """``cache`` [B, ...] with ``update`` written along ``axis`` from each sample's index on; circular: past its end."""
    axis = positive(axis, cache.dim())
    steps = torch.arange(update.size(axis), device=cache.device).unsqueeze(0).expand(cache.size(0), -1)
    if write_indices is not None:
        steps = steps + write_indices.reshape(-1, 1)
    if mode == "circular":
        steps = steps % cache.size(axis)
    index = steps.reshape(cache.size(0), *(steps.size(1) if d == axis else 1 for d in range(1, cache.dim())))
    return cache.scatter(axis, index.long().expand_as(update), update)


@operator("NonZero")
def non_zero(x: Tensor) -> Tensor:
    """Indices of the elements that are not zero, [rank, count]."""
    return torch.nonzero(x).T


@operator("OneHot", literals=(1,), settings=(2,))
def one_hot(index: Tensor, depth: Number, values: Tensor, axis: int = -1) -> Tensor:
    """``values[1]`` at the index along a new axis, ``values[0]`` elsewhere and for indices out of range."""
    size = int(number(depth))
    index = index.long()
    inside = (index >= -size) & (index < size)
    hot = F.one_hot(torch.where(inside, from_front(index, size), 0), size).bool() & inside.unsqueeze(-1)
    return torch.where(hot.movedim(-1, axis), values[1], values[0])


@operator("Compress")
def compress(x: Tensor, condition: Tensor, axis: int | None = None) -> Tensor:
    """Slices along ``axis`` (or elements of the flattened tensor) where the condition holds."""
    index = torch.nonzero(condition).reshape(-1)
    return x.reshape(-1)[index] if axis is None else x.index_select(axis, index)


@operator("TopK", since=1, counted=True)
def top_k_by_attribute(x: Tensor, k: int, axis: int = -1, outputs: int = 2) -> Tensor | tuple[Tensor, Tensor]:
    """The k largest, k an attribute."""
    return top_k(x, k, axis, outputs=outputs)


@operator("TopK", since=10, literals=(1,), counted=True)
def top_k(
    x: Tensor, k: Number, axis: int = -1, largest: int = 1, sorted: int = 1, outputs: int = 2
) -> Tensor | tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along ``axis`` and their indices; of equal ones the first come first."""
    values, index = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    count = int(number(k))
    values = values.narrow(axis, 0, count)
    return (values, index.narrow(axis, 0, count)) if outputs > 1 else values


@operator("Unique", counted=True)
def unique(x: Tensor, axis: int | None = None, sorted: int = 1, outputs: int = 1) -> Tensor | tuple[Tensor, ...]:
    """Values without repetition, their first indices, where each went, and how often it occurs."""
    array = (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True)
    _, first, inverse, counts = np.unique(array, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        first, counts, inverse = first[order], counts[order], rank[inverse]
    at = torch.from_numpy(first).to(x.device)
    values = x.reshape(-1)[at] if axis is None else x.index_select(axis, at)
    if outputs == 1:
        return values
    return values, at, torch.from_numpy(inverse).to(x.device), torch.from_numpy(counts).to(x.device)
