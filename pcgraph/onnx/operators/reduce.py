"""Reductions, and what runs along an axis: sums, extrema, softmax, cumulative sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .numbers import Integers, Number, number, optional, positive
from .table import add, operator

_Reduction = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if not x.is_floating_point():
        return torch.div(_sum(x, axes, keep), math.prod(x.shape[a] for a in axes), rounding_mode="trunc")
    return x.mean(axes, keepdim=keep)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.logsumexp(x, axes, keepdim=keep)


def _extreme(reduction: Callable[..., Tensor], empty: float) -> _Reduction:
    """Largest or smallest; of nothing it is `empty`, the infinity that changes nothing."""

    def reduce(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
        if x.dtype == torch.bool:
            return reduce(x.to(torch.uint8), axes, keep).bool()
        if not any(x.size(axis) == 0 for axis in axes):
            return reduction(x, axes, keepdim=keep)
        limit = empty if x.is_floating_point() else math.copysign(torch.iinfo(x.dtype).max, empty)
        sizes = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
        filled = torch.full(sizes, limit, dtype=x.dtype, device=x.device)
        return filled if keep else filled.squeeze(axes)

    return reduce


def _root(x: Tensor) -> Tensor:
    return torch.sqrt(x) if x.is_floating_point() else torch.sqrt(x.double()).to(x.dtype)


def reduction(
    name: str,
    reduce: _Reduction,
    before: Callable[[Tensor], Tensor] | None = None,
    after: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Register one of the Reduce operators; `before` and `after` apply even where nothing is reduced."""

    def function(x: Tensor, axes: Integers | None = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        y = x if before is None else before(x)
        which = optional(axes)
        if which or not noop_with_empty_axes:
            along = tuple(positive(axis, x.dim()) for axis in which or range(x.dim()))
            y = reduce(y, along, bool(keepdims)) if along else y
        return y if after is None else after(y)

    function.__name__ = function.__qualname__ = f"reduce_{name.removeprefix('Reduce').lower()}"
    function.__doc__ = f"{name} along the axes, along all of them if none is named."
    globals()[function.__name__] = function  # where pickle looks for it
    add(name, function, literals=(1,))


reduction("ReduceSum", _sum)
reduction("ReduceMean", _mean)
reduction("ReduceProd", _product)
reduction("ReduceMax", _extreme(torch.amax, -math.inf))
reduction("ReduceMin", _extreme(torch.amin, math.inf))
reduction("ReduceL1", _sum, before=torch.abs)
reduction("ReduceL2", _sum, before=torch.square, after=_root)
reduction("ReduceSumSquare", _sum, before=torch.square)
reduction("ReduceLogSum", _sum, after=torch.log)
reduction("ReduceLogSumExp", _log_sum_exp)


@operator("ArgMax")
def arg_max(x: Tensor, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the largest element along ``axis``."""
    return _arg(torch.argmax, x, axis, keepdims, select_last_index)


@operator("ArgMin")
def arg_min(x: Tensor, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
    """Index of the smallest element along ``axis``."""
    return _arg(torch.argmin, x, axis, keepdims, select_last_index)


def _arg(find: Callable[..., Tensor], x: Tensor, axis: int, keepdims: int, last: int) -> Tensor:
    if last:
        return x.size(axis) - 1 - find(x.flip(axis), axis, keepdim=bool(keepdims))
    return find(x, axis, keepdim=bool(keepdims))


# -- softmax: a matrix before opset 13, one axis since ---------------------------------------------------------
@operator("Softmax", since=1)
def softmax_of_matrix(x: Tensor, axis: int = 1) -> Tensor:
    """Softmax over all dimensions from ``axis`` on."""
    return torch.softmax(_matrix(x, axis), -1).reshape(x.shape)


@operator("LogSoftmax", since=1)
def log_softmax_of_matrix(x: Tensor, axis: int = 1) -> Tensor:
    """Logarithm of the softmax over all dimensions from ``axis`` on."""
    return torch.log_softmax(_matrix(x, axis), -1).reshape(x.shape)


@operator("Hardmax", since=1)
def hardmax_of_matrix(x: Tensor, axis: int = 1) -> Tensor:
    """1 at the first maximum over all dimensions from ``axis`` on."""
    return hardmax(_matrix(x, axis), -1).reshape(x.shape)


@operator("Softmax", since=13)
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Softmax along ``axis``."""
    return torch.softmax(x, axis)


@operator("LogSoftmax", since=13)
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Logarithm of the softmax along ``axis``."""
    return torch.log_softmax(x, axis)


@operator("Hardmax", since=13)
def hardmax(x: Tensor, axis: int = -1) -> Tensor:
    """1 at the first maximum along ``axis``, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def _matrix(x: Tensor, axis: int) -> Tensor:
    at = positive(axis, x.dim())
    return x.reshape(math.prod(x.shape[:at]), math.prod(x.shape[at:]))


# -- cumulative --------------------------------------------------------------------------------------------------
@operator("CumSum", literals=(1,))
def cum_sum(x: Tensor, axis: Number, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Sum of the elements up to each one, itself included unless ``exclusive``."""
    return _cumulative(torch.cumsum, 0, x, int(number(axis)), exclusive, reverse)


@operator("CumProd", literals=(1,))
def cum_prod(x: Tensor, axis: Number, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """Product of the elements up to each one, itself included unless ``exclusive``."""
    return _cumulative(torch.cumprod, 1, x, int(number(axis)), exclusive, reverse)


def _cumulative(
    run: Callable[..., Tensor], neutral: float, x: Tensor, axis: int, exclusive: int, reverse: int
) -> Tensor:
    y = run(x.flip(axis) if reverse else x, axis)
    if exclusive:
        first = torch.full_like(y.narrow(axis, 0, 1), neutral)
        y = torch.cat([first, y.narrow(axis, 0, y.size(axis) - 1)], axis)
    return (y.flip(axis) if reverse else y).to(x.dtype)


@operator("MeanVarianceNormalization")
def mean_variance_normalization(x: Tensor, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """Mean 0 and variance 1 along the axes."""
    centred = x - x.mean(tuple(axes), keepdim=True)
    return centred / (torch.sqrt(centred.square().mean(tuple(axes), keepdim=True)) + 1e-9)


@operator("LpNormalization")
def lp_normalization(x: Tensor, axis: int = -1, p: int = 2) -> Tensor:
    """Norm 1 along ``axis``; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)
