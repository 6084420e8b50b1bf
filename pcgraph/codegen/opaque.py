"""Opaque vertices: the one place where autograd runs inside the learning program, over a single vertex.

Used where an operation cannot be traced ahead (shapes that depend on data, a custom function that looks at
values). The vertex keeps an autograd graph of itself alone, cut off from its parents and children.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ..graph.vertex import Operation, TensorSpec


class Silent(Exception):
    """An opaque vertex has no error for one of its operands, or has one again (now noted in `Learn.silent`)."""


@dataclass(frozen=True, eq=False)
class Predict:
    """Evaluate one vertex on leaves of its own; return its outputs and the little graph to learn with."""

    operation: Operation
    places: tuple[int, ...]
    differentiable: tuple[bool, ...]

    def __call__(self, *operands: torch.Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            leaves = [
                t.detach().requires_grad_() if d else t for t, d in zip(operands, self.differentiable, strict=True)
            ]
            result = self.operation(*(leaves[place] for place in self.places))
        results = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        return (*(r.detach() for r in results), (results, leaves))


@dataclass(frozen=True, eq=False)
class Learn:
    """The vector-Jacobian product of one vertex, through its own little graph.

    Attributes:
        outputs: which outputs' errors arrive.
        collected: at which operands errors were collected before.
        wanted: operands that get an error, laid out like `layouts`.
        quiet: operands that are believed to get none.
        silent: what is believed of all programs of this kind; changed when it proves wrong.
    """

    outputs: tuple[int, ...]
    collected: tuple[int, ...]
    wanted: tuple[int, ...]
    layouts: tuple[TensorSpec | None, ...]
    quiet: tuple[int, ...]
    silent: set[int]

    def __call__(self, saved: Any, *errors: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        results, leaves = saved
        roots = [results[j] for j in self.outputs] + [leaves[i] for i in self.collected]
        asked = (*self.wanted, *self.quiet)
        gradients = torch.autograd.grad(roots, [leaves[i] for i in asked], errors, retain_graph=True, allow_unused=True)
        surprises = {i for i, g in zip(asked, gradients, strict=True) if (g is None) != (i in self.quiet)}
        if surprises:
            self.silent.symmetric_difference_update(surprises)
            raise Silent
        wanted = gradients[: len(self.wanted)]
        return tuple(_as_laid_out(g, layout) for g, layout in zip(wanted, self.layouts, strict=True))


def expected_layout(operand: TensorSpec) -> TensorSpec:
    """The layout that an opaque vertex's error is brought into: the operand's own, if it is dense."""
    with torch.device("meta"):
        like = torch.empty_strided(operand.shape, operand.stride, dtype=operand.dtype)
        return replace(operand, stride=tuple(torch.empty_like(like).stride()), requires_grad=False)


def _as_laid_out(error: torch.Tensor, layout: TensorSpec | None) -> torch.Tensor:
    if layout is None or error.layout is not torch.strided or error.stride() == layout.stride:
        return error
    return torch.empty_strided(layout.shape, layout.stride, dtype=error.dtype, device=error.device).copy_(error)
