"""Operators that move elements: shapes, slices, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dtypes import torch_dtype
from .numbers import Integers, Number, integers, number, optional, positive
from .table import operator


@operator("Shape")
def shape(x: Tensor, start: int = 0, end: int | None = None) -> Tensor:
    """Sizes of ``x``, a slice of them."""
    return torch.tensor(list(x.shape)[slice(start, end)], dtype=torch.int64, device=x.device)


@operator("Size")
def size(x: Tensor) -> Tensor:
    """Number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@operator("Reshape", literals=(1,))
def reshape(x: Tensor, shape: Integers, allowzero: int = 0) -> Tensor:
    """Another shape; 0 keeps a size (unless ``allowzero``), -1 is what is left."""
    sizes = integers(shape)
    if not allowzero:
        sizes = [x.size(i) if size == 0 else size for i, size in enumerate(sizes)]
    if -1 in sizes and x.numel() == 0:  # torch calls that ambiguous
        known = math.prod(size for size in sizes if size != -1)
        sizes = [0 if size == -1 and known else size for size in sizes]
    return x.reshape(sizes)


@operator("Flatten")
def flatten(x: Tensor, axis: int = 1) -> Tensor:
    """A matrix: dimensions before ``axis`` by those from it on."""
    if axis == 1 and x.dim() > 1:
        return torch.flatten(x, 1)
    at = positive(axis, x.dim())
    return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))


@operator("Transpose")
def transpose(x: Tensor, perm: Sequence[int] | None = None) -> Tensor:
    """Dimensions in another order, backwards by default."""
    return x.permute(tuple(range(x.dim()))[::-1] if perm is None else tuple(perm))


@operator("Squeeze", literals=(1,))
def squeeze(x: Tensor, axes: Integers | None = None) -> Tensor:
    """Without these dimensions of size 1; without all of them if none is named."""
    which = optional(axes)
    if which is None:
        which = [i for i, size in enumerate(x.shape) if size == 1]
    for axis in which:
        if x.size(axis) != 1:
            raise ValueError(f"Squeeze: dimension {axis} has size {x.size(axis)}")
    return x.squeeze(tuple(which)) if which else x


@operator("Unsqueeze", literals=(1,))
def unsqueeze(x: Tensor, axes: Integers) -> Tensor:
    """With dimensions of size 1 at these places of the result."""
    which = integers(axes)
    rank = x.dim() + len(which)
    for axis in sorted(positive(axis, rank) for axis in which):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def concat(*operands: Tensor, axis: int = 1) -> Tensor:
    """One behind the other along ``axis``."""
    return torch.cat(operands, axis)


@operator("Split", literals=(1,), counted=True)
def split(
    x: Tensor, split: Integers | None = None, axis: int = 0, num_outputs: int | None = None, outputs: int = 1
) -> Tensor | tuple[Tensor, ...]:
    """Pieces of these lengths, or of equal ones, the last smaller if it has to be."""
    lengths = optional(split)
    if lengths is None:
        pieces, size = num_outputs or outputs, x.size(axis)
        length = -(-size // pieces)
        lengths = [length] * (pieces - 1) + [size - length * (pieces - 1)]
    parts = torch.split(x, lengths, axis)
    return parts[0] if outputs == 1 else parts


@operator("Slice", literals=(1, 2, 3, 4))
def slice_(
    x: Tensor,
    starts: Integers,
    ends: Integers,
    axes: Integers | None = None,
    steps: Integers | None = None,
) -> Tensor:
    """Elements from start to end by step, along each axis named."""
    first, last = integers(starts), integers(ends)
    which = optional(axes) or list(range(len(first)))
    by = optional(steps) or [1] * len(first)
    for start, end, axis, step in zip(first, last, which, by, strict=True):
        size = x.size(axis)
        if step > 0:
            index = [slice(None)] * x.dim()
            index[axis] = slice(*slice(start, end, step).indices(size))
            x = x[tuple(index)]
        else:
            start = min(max(start + size if start < 0 else start, -1), size - 1)
            end = max(end + size, -1) if end < 0 else end
            x = x.index_select(axis, torch.arange(start, min(end, start), step, device=x.device))
    return x


@operator("Expand", literals=(1,))
def expand(x: Tensor, shape: Integers) -> Tensor:
    """Broadcast with this shape, both ways."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(integers(shape))))


@operator("Tile", literals=(1,))
def tile(x: Tensor, repeats: Integers) -> Tensor:
    """So many times along each dimension."""
    return x.repeat(integers(repeats))


@operator("Pad", since=1)
def pad_by_attributes(x: Tensor, pads: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Padding by attributes."""
    return pad(x, pads, value, mode=mode)


@operator("Pad", since=11, literals=(1, 2, 3), settings=(2,))
def pad(
    x: Tensor,
    pads: Integers,
    value: Number | None = None,
    axes: Integers | None = None,
    mode: str = "constant",
) -> Tensor:
    """More elements (or fewer, by negative numbers) before and after each dimension."""
    amounts, which = integers(pads), optional(axes)
    count = len(amounts) // 2
    which = list(range(count)) if which is None else [positive(axis, x.dim()) for axis in which]
    before, after = [0] * x.dim(), [0] * x.dim()
    for i, axis in enumerate(which):
        before[axis], after[axis] = amounts[i], amounts[i + count]
    if mode == "constant":
        flat = [amount for axis in reversed(range(x.dim())) for amount in (before[axis], after[axis])]
        return F.pad(x, flat, value=0 if value is None else number(value))
    for axis in range(x.dim()):
        if before[axis] or after[axis]:
            x = x.index_select(axis, _mirrored(x.size(axis), before[axis], after[axis], mode, x.device))
    return x


def _mirrored(size: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    """Which elements of a dimension stand in the padded one."""
    index = torch.arange(-before, size + after, device=device)
    if mode == "edge":
        return index.clamp(0, size - 1)
    if mode == "wrap":
        return index % size
    if mode == "reflect":
        return (size - 1) - ((index % (2 * (size - 1))) - (size - 1)).abs() if size > 1 else index * 0
    raise ValueError(f"Pad: unknown mode {mode!r}")


@operator("ConstantOfShape", literals=(0,))
def constant_of_shape(shape: Integers, value: Tensor | None = None) -> Tensor:
    """A tensor filled with one number, 0 by default."""
    if value is None:
        return torch.zeros(integers(shape))
    return value.reshape(()).expand(integers(shape)).clone()


@operator("Range", literals=(0, 1, 2), settings=(0, 1, 2))
def range_(start: Number, limit: Number, delta: Number, stash_type: int = 1) -> Tensor:
    """Numbers from start to below limit, by delta."""
    first, last, by = number(start), number(limit), number(delta)
    count = max(0, math.ceil((last - first) / by))
    like = next((operand for operand in (start, limit, delta) if isinstance(operand, Tensor)), None)
    if like is None:
        dtype = torch.int64 if isinstance(first, int) else torch.float32
        return (first + torch.arange(count, dtype=torch.int64) * by).to(dtype)
    return (first + torch.arange(count, device=like.device) * by).to(like.dtype)


@operator("EyeLike")
def eye_like(x: Tensor, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on the k-th diagonal of a matrix of the same shape."""
    rows = torch.arange(x.size(0), device=x.device).unsqueeze(1)
    columns = torch.arange(x.size(1), device=x.device)
    return (columns - rows == k).to(x.dtype if dtype is None else torch_dtype(dtype))


@operator("Trilu", literals=(1,))
def trilu(x: Tensor, k: Number | None = None, upper: int = 1) -> Tensor:
    """The triangle above (or below) the k-th diagonal."""
    diagonal = 0 if k is None else int(number(k))
    return torch.triu(x, diagonal) if upper else torch.tril(x, diagonal)


@operator("DepthToSpace")
def depth_to_space(x: Tensor, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels to blocks of pixels: [N, C b b, H, W] to [N, C, H b, W b]."""
    n, c, h, w = x.shape
    b = blocksize
    if mode == "CRD":
        return F.pixel_shuffle(x, b)
    blocks = x.reshape(n, b, b, c // b // b, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b // b, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(x: Tensor, blocksize: int, mode: str = "DCR") -> Tensor:
    """Blocks of pixels to channels: [N, C, H b, W b] to [N, C b b, H, W]."""
    n, c, h, w = x.shape
    b = blocksize
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    return blocks.permute(order).reshape(n, c * b * b, h // b, w // b)


@operator("CenterCropPad", literals=(1,))
def center_crop_pad(x: Tensor, shape: Integers, axes: Sequence[int] | None = None) -> Tensor:
    """Cropped or padded to these sizes, around the middle."""
    sizes = integers(shape)
    for axis, wanted in zip(range(len(sizes)) if axes is None else axes, sizes, strict=True):
        missing = wanted - x.size(axis)
        if missing < 0:
            x = x.narrow(axis, -missing // 2, wanted)
        elif missing > 0:
            x = pad(x, [missing // 2, missing - missing // 2], None, [axis])
    return x


@operator("ReverseSequence", literals=(1,))
def reverse_sequence(x: Tensor, lengths: Integers, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """The first elements of every sequence backwards."""
    y = x.movedim((batch_axis, time_axis), (0, 1))
    rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(y, integers(lengths), strict=True)]
    return torch.stack(rows).movedim((0, 1), (batch_axis, time_axis))
