"""What a vertex of a random DAG may do: how it runs, which operands fit, and what autograd will want back later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Layers = Any
"""The model: ``own(step)``, ``shared(k)``, ``vector(k)`` give parameters."""
Fits = Callable[[Tensor, Sequence[Tensor]], bool]
"""Whether a value may be the next operand, given the operands chosen before it."""


@dataclass(frozen=True)
class Op:
    """One kind of vertex.

    Attributes:
        run: ``(model, index of the step, pick, operands) -> tensor or several``. `pick` chooses a variant.
        fits: a test for each operand.
        saves_operands: the gradient may need an operand's value, so it must not be written to afterwards.
        saves_result: likewise the result.
        alias: the result shares memory with the first operand.
        sealed: nothing may be written through the result (pieces of a multi-output view, detached aliases).
        writes: changes its first operand in place.
    """

    run: Callable[[Layers, int, int, list[Tensor]], Any]
    fits: tuple[Fits, ...]
    saves_operands: bool = True
    saves_result: bool = False
    alias: bool = False
    sealed: bool = False
    writes: bool = False


def floating(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point()


def small(value: Tensor, before: Sequence[Tensor]) -> bool:
    """For operations that grow: products of small values stay finite in float32."""
    return value.is_floating_point() and bool(value.abs().max() <= 4)


def matrix(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point() and value.dim() == 2


def four_wide(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point() and value.shape[-1] == 4


def two_wide(value: Tensor, before: Sequence[Tensor]) -> bool:
    """Wide enough to be cut into columns."""
    return value.is_floating_point() and value.shape[-1] >= 2


def even(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point() and value.shape[-1] % 2 == 0


def boolean(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.dtype is torch.bool


def _shape(one: Tensor, two: Tensor) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(one.shape, two.shape))
    except RuntimeError:
        return None


def broadcasts(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point() and _shape(value, before[-1]) is not None


def broadcasts_small(value: Tensor, before: Sequence[Tensor]) -> bool:
    return broadcasts(value, before) and small(value, before)


def broadcasts_into(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point() and _shape(value, before[0]) == tuple(before[0].shape)


def like_all(value: Tensor, before: Sequence[Tensor]) -> bool:
    return value.is_floating_point() and all(value.shape == other.shape for other in before)


def same_width(value: Tensor, before: Sequence[Tensor]) -> bool:
    return small(value, before) and value.dim() == 2 and value.shape[1] == before[0].shape[1]


def joins(value: Tensor, before: Sequence[Tensor]) -> bool:
    rows, columns = before[0].shape
    return matrix(value, before) and value.shape[0] == rows and value.shape[1] + columns <= 6


def mask_of(value: Tensor, before: Sequence[Tensor]) -> bool:
    return boolean(value, before) and _shape(value, before[0]) == tuple(before[0].shape)


def unary(function: Callable[[Tensor], Any], fits: Fits = floating, **flags: bool) -> Op:
    return Op(lambda model, step, pick, v: function(v[0]), (fits,), **flags)


def binary(function: Callable[[Tensor, Tensor], Tensor], second: Fits, first: Fits = floating, **flags: bool) -> Op:
    return Op(lambda model, step, pick, v: function(v[0], v[1]), (first, second), **flags)


def _no_grad_tanh(x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.tanh(x)


def _add_to_column(model: Layers, step: int, pick: int, v: list[Tensor]) -> Tensor:
    v[0][..., pick % v[0].shape[-1]] += 0.5
    return v[0]


def _write_first_column(model: Layers, step: int, pick: int, v: list[Tensor]) -> Tensor:
    v[0][..., :1] = v[1][..., :1]
    return v[0]


def _view(model: Layers, step: int, pick: int, v: list[Tensor]) -> Tensor:
    views = (lambda x: x[..., :-1], lambda x: x.mT if x.dim() == 2 else x[None], lambda x: x.unsqueeze(0).squeeze(0))
    return (*views, lambda x: x[..., 1:])[pick % 4](v[0])


def _reduce(model: Layers, step: int, pick: int, v: list[Tensor]) -> Tensor:
    x = v[0]
    reductions = (x.mean, x.sum, x.amax, x.logsumexp)
    return reductions[pick % 4](-1, keepdim=True)


_GROUPS: dict[str, dict[str, Op]] = {
    "pointwise": {
        "tanh": unary(torch.tanh, saves_result=True),
        "relu": unary(torch.relu, saves_result=True),
        "sigmoid": unary(torch.sigmoid, saves_result=True),
        "sin": unary(torch.sin),
        "neg": unary(torch.neg, saves_operands=False),
        "abs": unary(torch.abs),
        "exp": unary(lambda x: x.clamp(-2, 2).exp(), saves_result=True),
        "softmax": unary(lambda x: x.softmax(-1), saves_result=True),
        "gelu": unary(F.gelu),
        "round": unary(torch.round),
        "half": unary(lambda x: 0.5 * x + 0.1, saves_operands=False),
        "square": unary(lambda x: x * x, small),
        "cube": unary(lambda x: x * x * x, small),
        "dropout": unary(lambda x: F.dropout(x, 0.3)),
    },
    "learned": {
        "linear": Op(lambda model, step, pick, v: F.linear(v[0], *model.own(step)), (floating,)),
        "shared_linear": Op(lambda model, step, pick, v: model.shared(pick)(v[0]), (four_wide,)),
        "shared_weight_transposed": Op(lambda model, step, pick, v: v[0] @ model.shared(pick).weight, (four_wide,)),
        "vector_plus": Op(lambda model, step, pick, v: v[0] + model.vector(pick), (four_wide,), saves_operands=False),
        "vector_times": Op(lambda model, step, pick, v: model.vector(pick) * v[0], (four_wide,)),
    },
    "combining": {
        "add": binary(torch.add, broadcasts, saves_operands=False),
        "sub": binary(torch.sub, broadcasts, saves_operands=False),
        "mul": binary(torch.mul, broadcasts_small, small),
        "ratio": binary(lambda x, y: x / (1 + y * y), broadcasts_small),
        "maximum": binary(torch.maximum, broadcasts),
        "matmul": binary(lambda x, y: 0.3 * (x @ y.T), same_width, lambda v, b: small(v, b) and v.dim() == 2),
        "cat": binary(lambda x, y: torch.cat([x, y], 1), joins, matrix, saves_operands=False),
        "where": Op(
            lambda model, step, pick, v: torch.where(v[2], v[0], v[1]),
            (floating, like_all, mask_of),
            saves_operands=False,
        ),
        "attend": Op(
            lambda model, step, pick, v: (v[0] @ v[1].T).softmax(-1) @ v[2],
            (lambda v, b: small(v, b) and v.dim() == 2, same_width, lambda v, b: like_all(v, b[1:])),
        ),
    },
    "masks": {
        "mask": unary(lambda x: x > 0, saves_operands=False),
        "masked_fill": binary(lambda x, mask: x.masked_fill(mask, 0.25), mask_of, saves_operands=False),
        "times_mask": binary(torch.mul, mask_of),
        "sort": unary(lambda x: x.gather(-1, x.argsort(-1))),
    },
    "pieces": {
        "chunk": unary(lambda x: x.chunk(2, -1), even, saves_operands=False, alias=True, sealed=True),
        "split": unary(
            lambda x: x.split([1, x.shape[-1] - 1], -1), two_wide, saves_operands=False, alias=True, sealed=True
        ),
        "unbind": unary(lambda x: x.unbind(0), matrix, saves_operands=False, alias=True, sealed=True),
        "max": unary(lambda x: x.max(-1, keepdim=True)),
        "topk": Op(lambda model, step, pick, v: v[0].topk(2, -1, largest=bool(pick % 2)), (two_wide,)),
    },
    "shapes": {
        "view": Op(_view, (two_wide,), saves_operands=False, alias=True),
        "detach": unary(torch.detach, saves_operands=False, alias=True, sealed=True),
        "no_grad": unary(_no_grad_tanh, saves_operands=False),
        "flip": unary(lambda x: x.flip(-1), saves_operands=False),
        "reduce": Op(_reduce, (floating,), saves_result=True),
        "spread": unary(lambda x: x[..., :1].expand_as(x) * 1, saves_operands=False),
    },
    "writes": {
        "add_": binary(lambda x, y: x.add_(y), broadcasts_into, saves_operands=False, alias=True, writes=True),
        "mul_": binary(
            lambda x, y: x.mul_(y), lambda v, b: broadcasts_into(v, b) and small(v, b), small, alias=True, writes=True
        ),
        "relu_": unary(F.relu_, saves_operands=False, saves_result=True, alias=True, writes=True),
        "add_to_column": Op(_add_to_column, (floating,), saves_operands=False, alias=True, writes=True),
        "write_column": Op(_write_first_column, (floating, like_all), saves_operands=False, alias=True, writes=True),
    },
}

GROUPS: tuple[tuple[str, ...], ...] = tuple(tuple(ops) for ops in _GROUPS.values())
"""Names of the operations by family; a strategy draws a family first, so that writes and pieces are not rare."""
OPS: dict[str, Op] = {name: op for ops in _GROUPS.values() for name, op in ops.items()}
