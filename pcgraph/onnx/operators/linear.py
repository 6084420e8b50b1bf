"""Matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .table import MICROSOFT, add, operator
from .windows import Pads, geometry, padded

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

add("MatMul", torch.matmul)
add("Det", torch.linalg.det)


@operator("Gemm")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """``alpha A B + beta C``, A and B transposed on request."""
    product = (a.mT if transA else a) @ (b.mT if transB else b)
    if alpha != 1:
        product = (alpha * product).to(a.dtype)
    if c is None or beta == 0:  # as BLAS has it, C may hold anything then
        return product
    return product + (c if beta == 1 else (beta * c).to(a.dtype))


@operator("FusedMatMul", domain=MICROSOFT)
def fused_matmul(
    a: Tensor,
    b: Tensor,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """``alpha A B``; ``transBatch`` moves the batch's first dimension in front of the last one first."""
    a = a.movedim(0, -2) if transBatchA else a
    b = b.movedim(0, -2) if transBatchB else b
    product = torch.matmul(a.mT if transA else a, b.mT if transB else b)
    return product if alpha == 1 else alpha * product


@operator("Einsum")
def einsum(*operands: Tensor, equation: str) -> Tensor:
    """Einstein's sum."""
    return torch.einsum(equation.replace(" ", ""), *operands)


@operator("Conv")
def conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    kernel_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """Convolution of [N, C, *] with [O, C / group, *]."""
    stride, around, dilation = geometry(x, w.shape[2:], strides, pads, dilations, auto_pad)
    run = _CONV[w.dim() - 2]
    if all(before == after for before, after in around):
        return run(x, w, bias, stride, [before for before, _ in around], dilation, group)
    return run(padded(x, around), w, bias, stride, 0, dilation, group)


@operator("ConvTranspose")
def conv_transpose(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    kernel_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
) -> Tensor:
    """Transposed convolution of [N, C, *] with [C, O / group, *]."""
    n = w.dim() - 2
    stride, dilation = list(strides or [1] * n), list(dilations or [1] * n)
    extra = list(output_padding or [0] * n)
    full = [stride[i] * (x.size(2 + i) - 1) + extra[i] + (w.size(2 + i) - 1) * dilation[i] + 1 for i in range(n)]
    if output_shape is None and auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        output_shape = [x.size(2 + i) * stride[i] for i in range(n)]
    if output_shape is None:
        flat = list(pads or [0] * 2 * n)
        crop: Pads = [(flat[i], flat[i + n]) for i in range(n)]
    else:
        crop = _crop(full, list(output_shape)[-n:], auto_pad)
    run = _CONV_TRANSPOSE[n]
    fits = all(o < max(s, d) for o, s, d in zip(extra, stride, dilation, strict=True))
    if output_shape is None and fits and all(before == after >= 0 for before, after in crop):
        return run(x, w, bias, stride, [before for before, _ in crop], extra, group, dilation)
    y = run(x, w, None, stride, 0, 0, group, dilation)
    y = padded(y, [(-before, o - after) for (before, after), o in zip(crop, extra, strict=True)])
    return y if bias is None else y + bias.reshape([1, -1] + [1] * n)


def _crop(full: list[int], wanted: list[int], auto_pad: str) -> Pads:
    """What to cut off each side so that the output has the wanted sizes."""
    crop = []
    for have, want in zip(full, wanted, strict=True):
        total = have - want
        before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        crop.append((before, total - before))
    return crop


@operator("DeformConv")
def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    offset_group: int = 1,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Tensor:
    """Convolution at places moved by ``offset`` [N, offset_group * kH * kW * 2, oH, oW], bilinear, zero outside."""
    if x.dim() != 4:
        raise ValueError("DeformConv: two spatial dimensions only")
    n, c, height, width = x.shape
    kh, kw = w.shape[2:]
    s, d, p = strides or [1, 1], dilations or [1, 1], pads or [0] * 4
    oh, ow = offset.shape[2:]
    moved = offset.reshape(n, offset_group, kh * kw, 2, oh, ow)
    rows = (torch.arange(oh, device=x.device) * s[0] - p[0]).reshape(1, oh, 1)
    columns = (torch.arange(ow, device=x.device) * s[1] - p[1]).reshape(1, 1, ow)
    rows = rows + (torch.arange(kh, device=x.device) * d[0]).repeat_interleave(kw).reshape(-1, 1, 1)
    columns = columns + (torch.arange(kw, device=x.device) * d[1]).repeat(kh).reshape(-1, 1, 1)
    at_y, at_x = rows + moved[:, :, :, 0], columns + moved[:, :, :, 1]
    images = x.reshape(n * offset_group, c // offset_group, height, width)
    places = (places.reshape(n * offset_group, kh * kw * oh * ow) for places in (at_y, at_x))
    samples = _bilinear(images, *places).reshape(n, offset_group, c // offset_group, kh * kw, oh, ow)
    if mask is not None:
        samples = samples * mask.reshape(n, offset_group, 1, kh * kw, oh, ow)
    samples = samples.reshape(n, group, c // group * kh * kw, oh * ow)
    y = torch.einsum("gok,ngkl->ngol", w.reshape(group, w.size(0) // group, -1), samples)
    y = y.reshape(n, w.size(0), oh, ow)
    return y if bias is None else y + bias.reshape(1, -1, 1, 1)


def _bilinear(images: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Images [M, C, H, W] at places [M, P] given in pixels, zero outside: [M, C, P]."""
    height, width = images.shape[2:]
    flat = images.flatten(2)
    top, left = ys.floor(), xs.floor()
    total = torch.zeros_like(flat[:, :, :1])
    for rows, down in ((top, 1 - (ys - top)), (top + 1, ys - top)):
        for columns, across in ((left, 1 - (xs - left)), (left + 1, xs - left)):
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            index = torch.where(inside, rows * width + columns, 0).long().unsqueeze(1)
            weight = torch.where(inside, down * across, 0).unsqueeze(1)
            total = total + flat.gather(2, index.expand(-1, images.size(1), -1)) * weight
    return total
