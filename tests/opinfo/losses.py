"""Losses, by the layout and the choice of the errors that they hand to a model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from tests.opinfo.leaves import differentiable

Loss = Callable[[list[Tensor]], list[Tensor]]


def weighted(outputs: list[Tensor]) -> list[Tensor]:
    """Every entry of every output with a fixed random weight: dense errors."""
    return [_weight(output, k) * output for k, output in enumerate(outputs)]


def summed(outputs: list[Tensor]) -> list[Tensor]:
    """Plain sums: errors are expanded from one number."""
    return outputs


def in_columns(outputs: list[Tensor]) -> list[Tensor]:
    """Weights whose first dimension is the fastest, and with them the errors."""
    found = []
    for k, output in enumerate(outputs):
        backwards = tuple(reversed(range(output.dim())))
        found.append(_weight(output, k).permute(backwards).contiguous().permute(backwards) * output)
    return found


def of_the_last(outputs: list[Tensor]) -> list[Tensor]:
    """The last output alone, and of that every second column."""
    last = outputs[-1]
    return [last if last.dim() == 0 else last[..., ::2]]


def loss_of(output: Any, loss: Loss = weighted) -> Tensor | None:
    """A number made of all differentiable tensors of a return value, or None if there are none."""
    outputs = []
    for leaf in tree_flatten(output)[0]:
        if isinstance(leaf, Tensor) and leaf.requires_grad and differentiable(leaf):
            dense = leaf if leaf.layout is torch.strided else leaf.to_dense()
            outputs.append(dense.to(torch.complex128 if dense.is_complex() else torch.float64))
    if not outputs:
        return None
    terms = [term.sum() for term in loss(outputs)]
    return torch.stack([term.real if term.is_complex() else term for term in terms]).sum()


def _weight(output: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(output.shape, generator=generator, dtype=torch.float64) + 0.5
