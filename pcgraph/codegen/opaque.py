"""Opaque vertices: the one place where autograd runs inside the learning program, over a single vertex.

Used where an operation cannot be traced ahead (shapes that depend on data, a custom function that looks at
values). The vertex keeps an autograd graph of itself alone, cut off from its parents and children. To which operands
it hands errors, and how those are laid out in memory, shows only when it learns; kernels further down round
differently on other strides, so what was believed wrongly is noted and the program compiled anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..graph.leaves import hooks_off, leaf_for
from ..graph.vertex import Operation, TensorSpec


class Surprise(Exception):
    """An opaque vertex hands on other errors than was believed (now noted in its `Beliefs`)."""


@dataclass(eq=False)
class Beliefs:
    """What is believed of the errors that an opaque kind hands on.

    Attributes:
        silent: operands that get none.
        layouts: layout of the others, by operand.
    """

    silent: set[int] = field(default_factory=set)
    layouts: dict[int, TensorSpec] = field(default_factory=dict)


@dataclass(eq=False)
class Little:
    """The autograd graph of one vertex.

    Attributes:
        results: outputs.
        leaves: operands.
        found: gradients of a run whose layouts were a surprise; a user's backward may run only once.
    """

    results: tuple[torch.Tensor, ...]
    leaves: list[torch.Tensor]
    found: dict[int, torch.Tensor | None] | None = None


@dataclass(frozen=True, eq=False)
class Predict:
    """Evaluate one vertex on leaves of its own; return its outputs and the little graph to learn with."""

    operation: Operation
    places: tuple[int, ...]
    differentiable: tuple[bool, ...]

    def __call__(self, *operands: torch.Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            leaves = [
                leaf_for(self.operation, t) if d else t for t, d in zip(operands, self.differentiable, strict=True)
            ]
            result = self.operation(*(leaves[place] for place in self.places))
        results = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        return (*(r.detach() for r in results), Little(results, leaves))


@dataclass(frozen=True, eq=False)
class Learn:
    """The vector-Jacobian product of one vertex, through its own little graph.

    Attributes:
        outputs: which outputs' errors arrive.
        collected: at which operands errors were collected before.
        wanted: operands that get an error.
        quiet: operands that are believed to get none.
        beliefs: of all programs of this kind.
    """

    outputs: tuple[int, ...]
    collected: tuple[int, ...]
    wanted: tuple[int, ...]
    quiet: tuple[int, ...]
    beliefs: Beliefs

    def __call__(self, saved: Little, *errors: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        asked = (*self.wanted, *self.quiet)
        found, saved.found = saved.found, None
        gradients = self._gradients(saved, asked, errors) if found is None else [found[i] for i in asked]
        surprised = False
        for i, gradient in zip(asked, gradients, strict=True):
            if (gradient is None) != (i in self.beliefs.silent):
                self.beliefs.silent ^= {i}
                surprised = True
            if gradient is not None and self._misplaced(i, gradient):
                self.beliefs.layouts[i] = error_spec(gradient)
                surprised = True
        if surprised:
            saved.found = dict(zip(asked, gradients, strict=True))
            raise Surprise
        return tuple(gradients[: len(self.wanted)])

    def _gradients(self, saved: Little, asked: tuple[int, ...], errors: Any) -> Sequence[torch.Tensor | None]:
        results, leaves = saved.results, saved.leaves
        roots = [results[j] for j in self.outputs] + [leaves[i] for i in self.collected]
        with hooks_off([leaves[i] for i in asked], results):
            return torch.autograd.grad(roots, [leaves[i] for i in asked], errors, retain_graph=True, allow_unused=True)

    def _misplaced(self, i: int, gradient: torch.Tensor) -> bool:
        return gradient.layout is torch.strided and gradient.stride() != self.beliefs.layouts[i].stride


def error_spec(error: torch.Tensor) -> TensorSpec:
    """Layout of an error."""
    return replace(TensorSpec.of(error), requires_grad=False)


def like_operand(operand: TensorSpec) -> TensorSpec:
    """The first belief about the layout of an error: the operand's own, if it is dense."""
    if len(operand.stride) != len(operand.shape):  # a layout without strides
        return replace(operand, requires_grad=False)
    with torch.device("meta"):
        like = torch.empty_strided(operand.shape, operand.stride, dtype=operand.dtype)
        return replace(operand, stride=tuple(torch.empty_like(like).stride()), requires_grad=False)
