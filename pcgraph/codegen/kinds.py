"""Vertex kinds: vertices of one kind share one local program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.keys import freeze, operation_key
from ..graph.vertex import Operation, TensorSpec

__all__ = ["Error", "Kind", "distinct", "freeze", "operation_key"]


def distinct(items: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[int, ...]]:
    """The different items in order of appearance, and for each item the index of its representative.

    >>> distinct(("a", "b", "a"))
    (('a', 'b'), (0, 1, 0))
    """
    index: dict[Any, int] = {}
    places = tuple(index.setdefault(item, len(index)) for item in items)
    return tuple(index), places


Error = tuple[int, TensorSpec]  # (index of an output or operand, layout of the error that arrives there)


@dataclass(frozen=True, slots=True)
class Kind:
    """What a local program depends on.

    Attributes:
        operation: ``f_v``.
        operands: layouts of the *different* operand values.
        places: for every operand slot, the index of its value in `operands`.
        outputs: what the capture saw; a trace that differs is not trusted.
        multi: the operation returns a tuple.
        errors: which outputs receive an error, with the error's layout.
        collected: operands at which an error was collected before and enters the local product.
        closed: why the vertex is opaque for other errors, and with that for these: its prediction is made.
    """

    operation: Operation
    operands: tuple[TensorSpec, ...]
    places: tuple[int, ...]
    outputs: tuple[TensorSpec | None, ...]
    multi: bool
    errors: tuple[Error, ...] = ()
    collected: tuple[Error, ...] = ()
    closed: str | None = None

    @property
    def key(self) -> Any:
        """Equal for vertices that can share a local program."""
        operation = operation_key(self.operation)
        return (operation, self.operands, self.places, self.multi, self.errors, self.collected, self.closed)

    @property
    def arrivals(self) -> tuple[str, ...]:
        """Local names of the errors that arrive: ``g<j>`` at outputs, ``c<i>`` collected at operands."""
        return (*(f"g{j}" for j, _ in self.errors), *(f"c{i}" for i, _ in self.collected))

    def call(self, values: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Evaluate the operation on the different operand values."""
        result = self.operation(*(values[place] for place in self.places))
        return (result,) if isinstance(result, torch.Tensor) else tuple(result)
