"""Identity of operations: which vertices do the same to their operands."""

from __future__ import annotations

from typing import Any

from .vertex import Operation, Slot


def freeze(value: Any) -> Any:
    """A hashable stand-in that tells apart what torch tells apart (``1``, ``1.0``, ``True``, ``-0.0``).

    >>> freeze([1, 2.0]) == freeze([1.0, 2.0])
    False
    """
    if isinstance(value, Slot):
        return ("slot", value.index)
    if isinstance(value, Operation):
        return ("operation", operation_key(value))
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


class Pool:
    """One object for equal operations: a recurrent network of any length has a few dozen.

    So what is worked out of an operation can be remembered by the object, and vertices share its memory.
    """

    def __init__(self) -> None:
        self._operations: dict[Any, Operation] = {}

    def operation(self, operation: Operation) -> Operation:
        """The first operation that was equal to this one."""
        key = (operation.name, operation_key(operation), operation.writes, operation.random, operation.opaque)
        return self._operations.setdefault(key, operation)


class Keys:
    """Keys of operations, each worked out once."""

    def __init__(self) -> None:
        self._keys: dict[int, tuple[Any, Operation]] = {}  # the operation is kept, and so its id

    def of(self, operation: Operation) -> Any:
        """`operation_key`, by identity of the operation."""
        known = self._keys.get(id(operation))
        if known is None:
            known = self._keys[id(operation)] = operation_key(operation), operation
        return known[0]
