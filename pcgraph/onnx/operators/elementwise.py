"""Elementwise operators: arithmetic, activations, comparisons, casts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ..dtypes import torch_dtype
from .table import MICROSOFT, add, operator

T = TypeVar("T")

_ITSELF: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Add": torch.add,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mish": F.mish,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Xor": torch.logical_xor,
}
for _name, _function in _ITSELF.items():
    add(_name, _function)


@operator("Identity", "OptionalGetElement")
def identity(x: T) -> T:
    """The operand."""
    return x


@operator("Div")
def div(a: Tensor, b: Tensor) -> Tensor:
    """Quotient; of integers it is rounded towards zero."""
    return a / b if a.is_floating_point() or a.is_complex() else torch.div(a, b, rounding_mode="trunc")


@operator("Pow", fixed=(1,))
def power(a: Tensor, b: Tensor) -> Tensor:
    """Power in the type of the base."""
    return torch.pow(a, b).to(a.dtype)


@operator("Mod")
def mod(a: Tensor, b: Tensor, fmod: int = 0) -> Tensor:
    """Remainder with the sign of the divisor, or of the dividend if ``fmod``."""
    return torch.fmod(a, b) if fmod else torch.remainder(a, b)


@operator("BitShift")
def bit_shift(a: Tensor, b: Tensor, direction: str = "LEFT") -> Tensor:
    """Shift of unsigned integers."""
    wide, by = a.long(), b.long()
    return (wide << by if direction == "LEFT" else wide >> by).to(a.dtype)


# -- activations -------------------------------------------------------------------------------------------
@operator("Elu")
def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x`` above zero, ``alpha (exp(x) - 1)`` below."""
    return F.elu(x, alpha)


@operator("Celu")
def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``max(0, x) + min(0, alpha (exp(x / alpha) - 1))``."""
    return F.celu(x, alpha)


@operator("Selu")
def selu(x: Tensor, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    """``gamma`` times the exponential linear unit."""
    return gamma * F.elu(x, alpha)


@operator("LeakyRelu")
def leaky_relu(x: Tensor, alpha: float = 0.01) -> Tensor:
    """``alpha x`` below zero."""
    return F.leaky_relu(x, alpha)


@operator("ThresholdedRelu")
def thresholded_relu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x`` above ``alpha``, else 0."""
    return F.threshold(x, alpha, 0.0)


@operator("PRelu", since=1)
def prelu_by_channel(x: Tensor, slope: Tensor) -> Tensor:
    """Before opset 7: one slope, or one per channel."""
    return prelu(x, slope.reshape(-1, *(1 for _ in x.shape[2:])) if slope.numel() > 1 else slope)


@operator("PRelu", since=7)
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """``slope x`` below zero; the slope broadcasts."""
    return torch.where(x < 0, x * slope, x)


@operator("HardSigmoid")
def hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """``alpha x + beta`` between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


@operator("Swish")
def swish(x: Tensor, alpha: float = 1.0) -> Tensor:
    """``x sigmoid(alpha x)``."""
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("Gelu")
@operator("Gelu", domain=MICROSOFT)
def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """``x`` times the normal distribution function, or its approximation by tanh."""
    return F.gelu(x, approximate=approximate)


@operator("FastGelu", domain=MICROSOFT)
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """GELU by tanh of ``x + bias``."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("BiasGelu", domain=MICROSOFT)
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """GELU of ``x + bias``."""
    return F.gelu(x + bias)


@operator("QuickGelu", domain=MICROSOFT)
def quick_gelu(x: Tensor, alpha: float = 1.702) -> Tensor:
    """``x sigmoid(alpha x)``."""
    return x * torch.sigmoid(alpha * x)


@operator("Shrink")
def shrink(x: Tensor, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    """Towards zero by ``bias``; zero between ``-lambd`` and ``lambd``."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))


@operator("Clip", since=1)
def clip_by_attributes(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """``x`` between two attributes."""
    return clip(x, min, max)


@operator("Clip", since=11, literals=(1, 2), fixed=(1, 2))
def clip(x: Tensor, low: Tensor | float | None = None, high: Tensor | float | None = None) -> Tensor:
    """``x`` between two bounds, each a scalar or left out; the upper one wins."""
    if low is None and high is None:
        return x
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return torch.clamp(x, low, high)
    if low is not None:
        x = torch.maximum(x, low) if isinstance(low, Tensor) else x.clamp(min=low)
    if high is not None:
        x = torch.minimum(x, high) if isinstance(high, Tensor) else x.clamp(max=high)
    return x


@operator("IsInf")
def is_inf(x: Tensor, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Where ``x`` is infinite, of the signs asked for."""
    wanted = torch.zeros_like(x, dtype=torch.bool)
    if detect_negative:
        wanted = wanted | torch.isneginf(x)
    return wanted | torch.isposinf(x) if detect_positive else wanted


# -- several operands --------------------------------------------------------------------------------------
@operator("Max", fixed=(0, 1))
def maximum(*operands: Tensor) -> Tensor:
    """The largest of the operands, elementwise."""
    return functools.reduce(torch.maximum, operands)


@operator("Min", fixed=(0, 1))
def minimum(*operands: Tensor) -> Tensor:
    """The smallest of the operands, elementwise."""
    return functools.reduce(torch.minimum, operands)


@operator("Sum")
def add_all(*operands: Tensor) -> Tensor:
    """The sum of the operands."""
    return functools.reduce(torch.add, operands)


@operator("Mean")
def mean_of(*operands: Tensor) -> Tensor:
    """The mean of the operands."""
    return functools.reduce(torch.add, operands) / len(operands)


@operator("Where", fixed=(1, 2))
def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where the condition holds, else ``b``."""
    return torch.where(condition, a, b)


# -- types -------------------------------------------------------------------------------------------------
@operator("Cast")
def cast(x: Tensor, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """``x`` in the type of that number."""
    return x.to(torch_dtype(to))


@operator("CastLike")
def cast_like(x: Tensor, like: Tensor, saturate: int = 1, round_mode: str = "up") -> Tensor:
    """``x`` in the type of ``like``."""
    return x.to(like.dtype)


@operator("BitCast")
def bit_cast(x: Tensor, to: int) -> Tensor:
    """The same bits in another type of the same width."""
    return x.view(torch_dtype(to))
