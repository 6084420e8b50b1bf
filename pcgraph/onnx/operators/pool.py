"""Pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .numbers import Integers, integers
from .table import operator
from .windows import Pads, geometry, padded, windows

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def _torch_pads(pads: Pads, kernel: Sequence[int], ceil: int) -> list[int] | None:
    """The pads as torch's pools take them; None if they do not."""
    if ceil or len(kernel) > 3:
        return None
    if any(before != after or 2 * before > width for (before, after), width in zip(pads, kernel, strict=True)):
        return None
    return [before for before, _ in pads]


@operator("MaxPool", counted=True)
def max_pool(
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """Largest element of each window, and where in the flattened input it stands."""
    stride, around, dilation = geometry(x, kernel_shape, strides, pads, dilations, auto_pad)
    plain = _torch_pads(around, kernel_shape, ceil_mode)
    if outputs == 1 and plain is not None and x.is_floating_point():
        return _MAX_POOL[len(kernel_shape)](x, list(kernel_shape), stride, plain, dilation)
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    values, at = windows(x, kernel_shape, stride, dilation, around, bool(ceil_mode), lowest).max(-1)
    if outputs == 1:
        return values
    places = torch.arange(x.numel(), device=x.device)
    if storage_order:
        places = places.reshape(*x.shape[:2], *x.shape[2:][::-1])
        places = places.permute(0, 1, *range(x.dim() - 1, 1, -1))
    else:
        places = places.reshape(x.shape)
    found = windows(places, kernel_shape, stride, dilation, around, bool(ceil_mode), -1)
    return values, found.gather(-1, at.unsqueeze(-1)).squeeze(-1)


@operator("AveragePool")
def average_pool(
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:
    """Mean of each window, pads counted or not."""
    stride, around, dilation = geometry(x, kernel_shape, strides, pads, dilations, auto_pad)
    plain = _torch_pads(around, kernel_shape, ceil_mode)
    if plain is not None and all(step == 1 for step in dilation):
        pool = _AVG_POOL[len(kernel_shape)]
        return pool(x, list(kernel_shape), stride, plain, False, bool(count_include_pad))
    ceil = bool(ceil_mode)
    total = windows(x, kernel_shape, stride, dilation, around, ceil, 0).sum(-1)
    ones = torch.ones_like(x[:1, :1])
    if not count_include_pad:
        return total / windows(ones, kernel_shape, stride, dilation, around, ceil, 0).sum(-1)
    none = [(0, 0)] * len(kernel_shape)
    counts = windows(padded(ones, around, 1.0), kernel_shape, stride, dilation, none, ceil, 0).sum(-1)
    return total / counts[tuple(slice(0, size) for size in (1, 1, *total.shape[2:]))]


@operator("LpPool")
def lp_pool(
    x: Tensor,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    p: int = 2,
) -> Tensor:
    """p-norm of each window."""
    stride, around, dilation = geometry(x, kernel_shape, strides, pads, dilations, auto_pad)
    powers = windows(x.abs() ** p, kernel_shape, stride, dilation, around, bool(ceil_mode), 0)
    return powers.sum(-1) ** (1.0 / p)


@operator("GlobalAveragePool")
def global_average_pool(x: Tensor) -> Tensor:
    """Mean over the spatial dimensions, which stay with size 1."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(x: Tensor) -> Tensor:
    """Largest element over the spatial dimensions, which stay with size 1."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(x: Tensor, p: int = 2) -> Tensor:
    """p-norm over the spatial dimensions, which stay with size 1."""
    return torch.linalg.vector_norm(x, p, tuple(range(2, x.dim())), keepdim=True)


@operator("MaxUnpool", literals=(2,))
def max_unpool(
    x: Tensor,
    index: Tensor,
    output_shape: Integers | None = None,
    kernel_shape: Sequence[int] = (),
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> Tensor:
    """Each element where MaxPool found it, zeros elsewhere."""
    n = len(kernel_shape)
    stride, around = strides or [1] * n, pads or [0] * 2 * n
    base = [(x.size(2 + i) - 1) * stride[i] + kernel_shape[i] - around[i] - around[n + i] for i in range(n)]
    flat = torch.zeros(x.size(0) * x.size(1) * math.prod(base), dtype=x.dtype, device=x.device)
    y = flat.scatter(0, index.reshape(-1), x.reshape(-1)).reshape(*x.shape[:2], *base)
    if output_shape is None:
        return y
    wanted = integers(output_shape)[2:]
    return padded(y, [(0, want - have) for want, have in zip(wanted, base, strict=True)])


@operator("Col2Im", literals=(1, 2))
def col2im(
    x: Tensor,
    image_shape: Integers,
    block_shape: Integers,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Sum of blocks [N, C prod(block), L] where they overlap in the image [N, C, *image]."""
    kernel, image = integers(block_shape), integers(image_shape)
    n = len(kernel)
    stride, dilation, around = strides or [1] * n, dilations or [1] * n, pads or [0] * 2 * n
    sizes = [image[i] + around[i] + around[i + n] for i in range(n)]
    places = torch.arange(math.prod(sizes), device=x.device).reshape(1, 1, *sizes)
    index = windows(places, kernel, stride, dilation, [(0, 0)] * n, False, 0).reshape(-1, math.prod(kernel)).T
    channels = x.size(1) // math.prod(kernel)
    flat = torch.zeros(x.size(0), channels, math.prod(sizes), dtype=x.dtype, device=x.device)
    y = flat.index_add(2, index.reshape(-1), x.reshape(x.size(0), channels, -1))
    return padded(y.reshape(x.size(0), channels, *sizes), [(-around[i], -around[i + n]) for i in range(n)])
