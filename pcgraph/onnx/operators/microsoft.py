"""Fused operators that onnxruntime's optimiser writes into files, where no other file has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .linear import conv, gemm
from .table import MICROSOFT, operator


def _activated(x: Tensor, name: str, params: Sequence[float]) -> Tensor:
    if name == "":
        return x
    if name == "Relu":
        return torch.relu(x)
    if name == "Sigmoid":
        return torch.sigmoid(x)
    if name == "Tanh":
        return torch.tanh(x)
    if name == "LeakyRelu":
        return F.leaky_relu(x, params[0] if params else 0.01)
    if name == "Clip":
        return x.clamp(*params)
    if name == "HardSigmoid":
        return torch.clamp(params[0] * x + params[1], 0, 1)
    raise ValueError(f"unknown activation {name!r}")


@operator("FusedConv", domain=MICROSOFT)
def fused_conv(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
    activation: str = "",
    activation_params: Sequence[float] = (),
    kernel_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> Tensor:
    """Activation of a convolution plus another tensor."""
    y = conv(x, w, bias, kernel_shape, strides, pads, dilations, group, auto_pad)
    return _activated(y if added is None else y + added, activation, activation_params)


@operator("FusedGemm", domain=MICROSOFT)
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
) -> Tensor:
    """Activation of a matrix product."""
    params = [p for p in (activation_alpha, activation_beta) if p is not None]
    return _activated(gemm(a, b, c, alpha, beta, transA, transB), activation, params)
