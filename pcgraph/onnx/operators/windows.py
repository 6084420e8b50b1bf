"""Strides, pads and dilations of convolutions and pools, and windows of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Pads: TypeAlias = list[tuple[int, int]]  # before and after each spatial dimension


def geometry(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    pads: Sequence[int] | None,
    dilations: Sequence[int] | None,
    auto_pad: str,
) -> tuple[list[int], Pads, list[int]]:
    """Stride, pads and dilation per spatial dimension, ``auto_pad`` resolved by the sizes of ``x`` [N, C, *]."""
    n = len(kernel)
    stride, dilation = list(strides or [1] * n), list(dilations or [1] * n)
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        flat = [0] * 2 * n if auto_pad == "VALID" or not pads else list(pads)
        return stride, [(flat[i], flat[i + n]) for i in range(n)], dilation
    around = []
    for i in range(n):
        size = x.size(2 + i)
        total = max((-(-size // stride[i]) - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 - size, 0)
        less, more = total // 2, total - total // 2
        around.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    return stride, around, dilation


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """The spatial dimensions padded; negative numbers crop."""
    if not any(amount for pair in pads for amount in pair):
        return x
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)


def windows(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Pads,
    ceil: bool,
    value: float,
) -> Tensor:
    """All windows of ``x`` [N, C, *] as [N, C, *outputs, prod(kernel)]: any rank and dilation, uneven pads, ceil."""
    outputs, missing = [], []
    for i, width in enumerate(kernel):
        length = x.size(2 + i) + sum(pads[i])
        extent = (width - 1) * dilation[i] + 1
        count = (-(-(length - extent) // stride[i]) if ceil else (length - extent) // stride[i]) + 1
        if ceil and (count - 1) * stride[i] >= x.size(2 + i) + pads[i][0]:
            count -= 1  # a window must start inside of the input or its left pad
        outputs.append(count)
        missing.append(max(0, (count - 1) * stride[i] + extent - length))
    y = padded(x, [(before, after + more) for (before, after), more in zip(pads, missing, strict=True)], value)
    for i, width in enumerate(kernel):
        starts = torch.arange(outputs[i], device=x.device).unsqueeze(1) * stride[i]
        index = starts + torch.arange(width, device=x.device) * dilation[i]
        y = y.index_select(2 + i, index.reshape(-1)).unflatten(2 + i, (outputs[i], width)).movedim(3 + i, -1)
    return y.flatten(2 + len(kernel))
