"""Normalisations, and dropout."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .numbers import Number, number, positive
from .table import MICROSOFT, operator

_HALF = (torch.float16, torch.bfloat16)


@operator("BatchNormalization", settings=(3, 4), counted=True)
def batch_norm_7(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Before opset 14 a node is in training mode if it has more than one output.

    The others are the running statistics after this batch, and those of the batch.
    """
    if outputs == 1:
        return batch_norm(x, scale, bias, mean, var, epsilon, momentum, spatial=spatial)
    results = batch_norm(x, scale, bias, mean, var, epsilon, momentum, 1, spatial, 3)
    return (*results, *_batch_statistics(x))[:outputs]


@operator("BatchNormalization", since=14, settings=(3, 4), counted=True)
def batch_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Batch normalisation of [N, C, *] by the statistics given, or in training mode by those of the batch.

    In training mode the other outputs are the running statistics after this batch; its variance is that of the
    population (divided by n).
    """
    if not spatial:
        raise ValueError("BatchNormalization: spatial=0, one mean per position, is not supported")
    if not training_mode:
        if outputs > 1:
            raise ValueError("BatchNormalization: more than one output without training_mode")
        return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)
    y = F.batch_norm(x, None, None, scale, bias, True, 0.0, epsilon)
    if outputs == 1:
        return y
    now = _batch_statistics(x)
    running = (old * momentum + new * (1 - momentum) for old, new in zip((mean, var), now, strict=True))
    return (y, *running)


def _batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance, that of the population, of every channel of [N, C, *]."""
    others = [axis for axis in range(x.dim()) if axis != 1]
    return x.mean(others), x.var(others, unbiased=False)


@operator("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    """Every channel of every sample by its own mean and variance."""
    if x.dim() == 2 or x[0, 0].numel() == 1:  # torch refuses what is constant zero, plus the bias
        return torch.zeros_like(x) * scale.reshape(1, -1, *x.shape[2:]) + bias.reshape(1, -1, *x.shape[2:])
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


def _normalised(x: Tensor, axis: int) -> tuple[Tensor, tuple[int, ...]]:
    """``x`` in the type that statistics are computed in, and the dimensions from ``axis`` on."""
    return x.float() if x.dtype in _HALF else x, tuple(range(positive(axis, x.dim()), x.dim()))


@operator("LayerNormalization", counted=True)
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Layer normalisation over the dimensions from ``axis`` on; the other outputs are mean and 1 / deviation."""
    wide, axes = _normalised(x, axis)
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt(centred.square().mean(axes, keepdim=True) + epsilon)
    y = (centred * inverse).to(x.dtype) * scale
    y = y if bias is None else y + bias
    return (y, mean, inverse)[:outputs] if outputs > 1 else y


@operator("RMSNormalization")
@operator("SimplifiedLayerNormalization")  # onnxruntime puts it into ai.onnx
@operator("SimplifiedLayerNormalization", domain=MICROSOFT)
def rms_norm(x: Tensor, scale: Tensor, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """By the root of the mean square over the dimensions from ``axis`` on."""
    wide, axes = _normalised(x, axis)
    return (wide * torch.rsqrt(wide.square().mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale


@operator("SkipLayerNormalization", domain=MICROSOFT, counted=True)
def skip_layer_norm(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    epsilon: float = 1e-12,
    outputs: int = 1,
) -> Tensor | tuple[Tensor | None, ...]:
    """Layer normalisation of a sum; the fourth output is the sum."""
    total = x + skip if bias is None else x + skip + bias
    y = F.layer_norm(total, total.shape[-1:], scale, beta, epsilon)
    if outputs == 1:
        return y
    mean = total.mean(-1, keepdim=True)
    inverse = torch.rsqrt((total - mean).square().mean(-1, keepdim=True) + epsilon)
    return (y, mean, inverse, total)[:outputs]


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT, counted=True)
def skip_rms_norm(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    epsilon: float = 1e-12,
    outputs: int = 1,
) -> Tensor | tuple[Tensor | None, ...]:
    """RMS normalisation of a sum; the fourth output is the sum."""
    total = x + skip if bias is None else x + skip + bias
    y = rms_norm(total, scale, -1, epsilon)
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon)
    return (y, None, inverse, total)[:outputs] if outputs > 1 else y


@operator("GroupNormalization", since=18)
def group_norm_by_group(x: Tensor, scale: Tensor, bias: Tensor, num_groups: int, epsilon: float = 1e-5) -> Tensor:
    """Group normalisation with one scale and bias per group."""
    each = x.size(1) // num_groups
    return F.group_norm(x, num_groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon)


@operator("GroupNormalization", since=21)
def group_norm(
    x: Tensor, scale: Tensor, bias: Tensor, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Group normalisation with one scale and bias per channel."""
    return F.group_norm(x, num_groups, scale, bias, epsilon)


@operator("LRN")
def lrn(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """By the sum of squares over neighbouring channels."""
    before, after = (size - 1) // 2, size // 2
    squares = F.pad(x.square().reshape(x.size(0), 1, x.size(1), -1), (0, 0, before, after))
    sums = F.avg_pool2d(squares, (size, 1), 1).reshape(x.shape) * size
    return x / torch.pow(bias + alpha / size * sums, beta)


@operator("Dropout", since=1, counted=True)
def dropout_of_inference(
    x: Tensor, ratio: float = 0.5, is_test: int = 1, outputs: int = 1
) -> Tensor | tuple[Tensor, Tensor]:
    """Dropout before opset 12, which is the identity in inference."""
    return (x, torch.ones_like(x, dtype=torch.bool)) if outputs > 1 else x


@operator("Dropout", since=12, literals=(1, 2), settings=(1,), counted=True)
def dropout(
    x: Tensor,
    ratio: Number = 0.5,
    training_mode: torch.Tensor | bool | None = None,
    seed: int | None = None,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """Dropout where ``training_mode`` holds, the identity elsewhere; the second output is the mask of what is kept.

    The seed is not followed: draws are torch's.
    """
    rate = float(number(ratio))
    if training_mode is None or not bool(training_mode) or rate == 0:
        return (x, torch.ones_like(x, dtype=torch.bool)) if outputs > 1 else x
    if outputs == 1:
        return F.dropout(x, rate, True)
    kept = torch.rand_like(x, dtype=torch.float32) >= rate
    return torch.where(kept, x / (1 - rate), 0.0), kept
