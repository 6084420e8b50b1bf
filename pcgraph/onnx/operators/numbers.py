"""Operands that a function reads in Python: shapes, axes, lengths, rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch

Integers: TypeAlias = torch.Tensor | Sequence[int] | int
Number: TypeAlias = torch.Tensor | float | int


def integers(operand: Integers) -> list[int]:
    """The numbers of a list, or of a tensor of no more than one dimension."""
    if isinstance(operand, torch.Tensor):
        return [int(v) for v in operand.reshape(-1).tolist()]
    return [operand] if isinstance(operand, int) else list(operand)


def optional(operand: Integers | None) -> list[int] | None:
    """The same for an operand that may be left out."""
    return None if operand is None else integers(operand)


def floats(operand: torch.Tensor | Sequence[float] | None) -> list[float]:
    """The numbers of an optional float operand; empty if it is left out."""
    if operand is None:
        return []
    return [float(v) for v in (operand.reshape(-1).tolist() if isinstance(operand, torch.Tensor) else operand)]


def number(operand: Number | Sequence[float]) -> float | int:
    """A scalar operand: a number, or a tensor or list that holds one."""
    if isinstance(operand, torch.Tensor):
        value: float | int = operand.reshape(-1)[0].item() if operand.numel() == 1 else operand.item()
        return value
    return operand if isinstance(operand, int | float) else operand[0]


def positive(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis
