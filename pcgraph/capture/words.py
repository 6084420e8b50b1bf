"""Words inside of CPython's objects that tell whether they were written to, read for thousands of objects in one go.

An object's type, a dict's counter of writes, the number of elements of a list, what a closure's cell holds, a
function's code: each is one machine word at a fixed place behind the object's address. NumPy gathers such words in
nanoseconds each, where a call into the object takes a hundred. The places are found by looking at samples, never
assumed; where one is not found, `Words.add` says so, and the caller compares by slower means.
"""

from __future__ import annotations

import collections
import ctypes
import sys
import types
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

_WORD = 8
_BASE = _WORD  # NumPy takes address 0 for "no memory"
_SIZE = 1 << 45  # words in the address space of a process

_version: Any = getattr(getattr(getattr(torch._C, "_dynamo", None), "guards", None), "dict_version", None)


def _word(item: Any, place: int) -> int:
    return ctypes.c_uint64.from_address(id(item) + place).value


def place(samples: Iterable[tuple[Any, int]]) -> int | None:
    """Where each of these objects, all of one kind, has the word that goes with it; None unless there is one place."""
    samples = list(samples)
    offsets = range(_WORD, min(type(item).__basicsize__ for item, _ in samples), _WORD)
    found = [offset for offset in offsets if all(_word(item, offset) == word for item, word in samples)]
    return found[0] if len(found) == 1 else None


def _shrunk(kind: Any, size: int) -> Any:
    """A container of so many elements that once had more: nothing else in it is as large."""
    values: list[Any] = [object() for _ in range(size + 3)]
    container: Any = kind(dict.fromkeys(values)) if kind is dict else kind(values)
    for value in values[:3]:
        container.pop(value) if kind is dict else container.remove(value)
    return container


def _functions() -> list[Any]:
    def one(a: int = 1, *, b: int = 2) -> None: ...
    def two(a: str = "a", *, b: str = "b") -> None: ...

    return [one, two]


def _cells() -> list[types.CellType]:
    return [types.CellType(object()), types.CellType(object())]


def _find() -> dict[str, int]:
    """Places by field; a field that is not found is left out."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != _WORD:
        return {}
    dicts = [_shrunk(dict, 5), _shrunk(dict, 9)]
    places = {
        "type": place((item, id(type(item))) for item in [types.SimpleNamespace(), collections.Counter()]),
        "contents": place((cell, id(cell.cell_contents)) for cell in _cells()),
        "writes": place((d, _version(d)) for d in dicts) if _version is not None else None,
    }
    places["__mro__"] = place((cls, id(cls.__mro__)) for cls in (type("A", (), {}), type("B", (int,), {})))
    for part in ("__code__", "__defaults__", "__kwdefaults__"):
        places[part] = place((function, id(getattr(function, part))) for function in _functions())
    for kind in (dict, list, set, collections.deque):
        places[kind.__name__] = place((_shrunk(kind, size), size) for size in (5, 9))
    return {field: where for field, where in places.items() if where is not None}


PLACES = _find()
MEMORY: Any = (
    np.ctypeslib.as_array((ctypes.c_uint64 * (_SIZE - 1)).from_address(_BASE)) if PLACES else np.empty(0, np.uint64)
)


def indices(addresses: Iterable[int]) -> Any:
    """Where in `MEMORY` the words at these addresses are."""
    return (np.fromiter(addresses, np.int64) - _BASE) // _WORD


_slots: weakref.WeakKeyDictionary[type, dict[str, int]] = weakref.WeakKeyDictionary()


def slot_places(cls: type) -> dict[str, int]:
    """Where objects of a class have their slots, by name; those that are not found, or mean something else, left out.

    They are found on a sample that nobody initialises, so that no code of the class runs.
    """
    if not PLACES:
        return {}
    if cls not in _slots:
        _slots[cls] = _find_slots(cls) if _plainly_made(cls) else {}
    return _slots[cls]


def _plainly_made(cls: type) -> bool:
    reads: Any = cls.__getattribute__
    return reads is object.__getattribute__ and not hasattr(cls, "__del__")


def _find_slots(cls: type) -> dict[str, int]:
    try:
        samples: list[Any] = [object.__new__(cls), object.__new__(cls)]
    except TypeError:  # abstract, or made in C
        return {}
    names = {name for owner in cls.__mro__ for name, value in vars(owner).items() if _is_slot(value)}
    found = {}
    for name in names:
        slot = next(vars(owner)[name] for owner in cls.__mro__ if name in vars(owner))
        if not _is_slot(slot):
            continue  # hidden by a class attribute
        values = [object(), object()]
        try:
            for sample, value in zip(samples, values, strict=True):
                slot.__set__(sample, value)
        except (AttributeError, TypeError):  # read-only, or for one type only
            continue
        where = place((sample, id(value)) for sample, value in zip(samples, values, strict=True))
        if where is not None:
            found[name] = where
    return found


def _is_slot(value: Any) -> bool:
    return isinstance(value, types.MemberDescriptorType)


class Words:
    """Words of many objects, gathered together.

    >>> words, items = Words(), [1, 2]
    >>> words.add(items, "list")
    True
    >>> int(words.read()[0])
    2
    """

    def __init__(self) -> None:
        self._keep: list[Any] = []  # a word may be read only while its object lives
        self._addresses: list[int] = []
        self._gathered: Any = None

    def __len__(self) -> int:
        return len(self._addresses)

    def add(self, item: Any, field: str | int) -> bool:
        """Read a field of an object (or the word at a place) from now on; False if that, or the object, is unknown."""
        where = field if isinstance(field, int) else PLACES.get(field)
        if item is None or where is None or id(item) >= (_SIZE - 2) * _WORD:
            return False
        self._keep.append(item)
        self._addresses.append(id(item) + where)
        self._gathered = None
        return True

    def read(self) -> Any:
        """All words, in the order in which they were added."""
        if self._gathered is None:
            self._gathered = indices(self._addresses)
        return MEMORY[self._gathered]
