"""Quantisation, as far as a file that is dequantised needs it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dtypes import torch_dtype
from .table import operator


def _per_axis(operand: Tensor, x: Tensor, axis: int, block_size: int) -> Tensor:
    """A scale or zero point in the shape that broadcasts with ``x``."""
    if block_size:
        return operand.repeat_interleave(block_size, axis).narrow(axis, 0, x.size(axis))
    if operand.numel() == 1:
        return operand.reshape(())
    return operand.reshape([-1 if d == axis % x.dim() else 1 for d in range(x.dim())])


@operator("DequantizeLinear", settings=(1, 2))
def dequantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """``(x - zero_point) scale``, per tensor, axis or block."""
    y = x.to(torch.float32)
    if zero_point is not None:
        y = y - _per_axis(zero_point, x, axis, block_size).to(torch.float32)
    y = y * _per_axis(scale, x, axis, block_size).to(torch.float32)
    return y.to(torch_dtype(output_dtype) if output_dtype else scale.dtype)


_RANGE = {
    torch.int8: (-128, 127),
    torch.uint8: (0, 255),
    torch.int16: (-32768, 32767),
    torch.uint16: (0, 65535),
    torch.int32: (-(2**31), 2**31 - 1),
}


@operator("QuantizeLinear", settings=(1, 2))
def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
    precision: int = 0,
) -> Tensor:
    """``x / scale + zero_point`` rounded to even and saturated."""
    dtype = zero_point.dtype if zero_point is not None else torch_dtype(output_dtype) if output_dtype else torch.uint8
    if dtype not in _RANGE:
        raise ValueError(f"quantisation to {dtype} is not supported")
    y = torch.round(x / _per_axis(scale, x, axis, block_size))
    if zero_point is not None:
        y = y + _per_axis(zero_point, x, axis, block_size).to(y.dtype)
    return y.clamp(*_RANGE[dtype]).to(torch.int64).to(dtype)
