"""Vertex kinds: vertices of one kind share one local program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..graph.vertex import Operation, Slot, TensorSpec


def freeze(value: Any) -> Any:
    """A hashable stand-in that tells apart what torch tells apart (``1``, ``1.0``, ``True``, ``-0.0``).

    >>> freeze([1, 2.0]) == freeze([1.0, 2.0])
    False
    """
    if isinstance(value, Slot):
        return ("slot", value.index)
    if isinstance(value, tuple | list):
        return (type(value).__name__, tuple(freeze(item) for item in value))
    if isinstance(value, dict):
        return ("dict", tuple((key, freeze(item)) for key, item in value.items()))
    if isinstance(value, slice):
        return ("slice", freeze(value.start), freeze(value.stop), freeze(value.step))
    if isinstance(value, float | complex):
        return (type(value).__name__, repr(value))
    if isinstance(value, bool | int | str):
        return (type(value).__name__, value)
    key = getattr(value, "key", None)
    if callable(key) and hasattr(value, "__name__"):
        return (value.__name__, key())
    try:
        hash(value)
    except TypeError:
        return _ById(value)
    return value


class _ById:
    """Compares by identity and keeps the object alive, so that the identity stays its own."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def operation_key(operation: Operation) -> Any:
    """Identity of an operation: the callable and its constants."""
    return (freeze(operation.target), freeze(operation.args), freeze(dict(operation.kwargs)))


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
