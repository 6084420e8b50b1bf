"""One vertex during inference: lines that predict it again, pull its error back, and learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import LearnError
from ..graph import Ref, TensorSpec
from . import opaque
from .lines import Line


@dataclass(frozen=True)
class Moves:
    """The lines of one vertex, over global names.

    ``x_<vertex>`` is a value node, ``e_<vertex>`` its error in PyTorch's sign (the negative of the paper's),
    ``t<n>_<vertex>`` temporaries, ``h<i>_<vertex>`` a copy of operand i from before the model wrote to it.

    Attributes:
        vertex: whose lines these are.
        refs: its values that carry an error.
        setup: before the first prediction.
        first: the first prediction, with the model's own effects.
        again: a later prediction, without effects.
        predictions: names of the predictions of `refs`.
        pull: the vector-Jacobian product towards values; `handed` are its results, in operand order.
        learn: the one towards parameters; `learned` are its results, in operand order.
    """

    vertex: str
    refs: tuple[Ref, ...]
    setup: tuple[Line, ...] = ()
    first: tuple[Line, ...] = ()
    again: tuple[Line, ...] = ()
    predictions: tuple[str, ...] = ()
    pull: tuple[Line, ...] = ()
    handed: tuple[tuple[Ref, str, TensorSpec], ...] = ()
    learn: tuple[Line, ...] = ()
    learned: tuple[tuple[Ref, str], ...] = ()


def needed(lines: Sequence[Line], results: Sequence[str]) -> list[Line]:
    """The lines that results depend on; all of them where one writes in place."""
    if any(not line.outs for line in lines):
        return list(lines)
    needed, kept = set(results), []
    for line in reversed(lines):
        if needed.intersection(line.outs):
            needed.update(line.reads)
            kept.append(line)
    return kept[::-1]


def same(one: Sequence[Line], other: Sequence[Line]) -> bool:
    """Whether lines are equal, whatever their constants are called."""

    def form(line: Line) -> tuple[Any, ...]:
        text = line.text
        for k, (name, _) in enumerate(line.constants):
            text = text.replace(f"{name}(", f"#{k}(") if name != "torch" else text
        return (line.outs, text, line.reads)

    def constants(lines: Sequence[Line]) -> list[Any]:
        return [value for line in lines for _, value in line.constants]

    a, b = constants(one), constants(other)
    alike = len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))
    return alike and [form(line) for line in one] == [form(line) for line in other]


def swapped(line: Line, names: dict[str, str]) -> Line:
    """The line with other names where it reads."""
    return replace(line, reads=tuple(names.get(read, read) for read in line.reads))


class _Tolerant:
    """The vector-Jacobian product of an opaque vertex: zeros where it hands on nothing."""

    def __init__(self, learn: opaque.Learn) -> None:
        self._learn = learn

    def __call__(self, saved: opaque.Little, *errors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        learn = self._learn
        found = learn._gradients(saved, (*learn.wanted, *learn.quiet), errors)
        if any(gradient is not None for gradient in found[len(learn.wanted) :]):
            raise LearnError("an opaque vertex hands on an error where it never did before", hint="use pcn.simulate")
        return tuple(
            torch.zeros_like(saved.leaves[i]) if gradient is None else gradient
            for i, gradient in zip(learn.wanted, found, strict=False)
        )


def tolerant(line: Line) -> Line:
    """The line of an opaque vertex that learns, without what Z-IL believes of the errors that it hands on."""
    constants = tuple((n, _Tolerant(v) if isinstance(v, opaque.Learn) else v) for n, v in line.constants)
    return replace(line, constants=constants)
