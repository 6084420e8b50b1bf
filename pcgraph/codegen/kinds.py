"""Vertex kinds: vertices of one kind share one local program."""

from __future__ import annotations

from typing import Any

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
