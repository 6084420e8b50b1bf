"""Are these the very same objects as before? Asked of thousands of objects at every call, so at the speed of memory.

CPython keeps the addresses of a list's elements side by side. Two lists hold the same objects if and only if those
bytes are equal, and comparing bytes takes a microsecond where comparing objects one by one takes hundreds.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import Any


class _List(ctypes.Structure):
    """The head of CPython's list object."""

    _fields_ = (
        ("head", ctypes.c_char * object.__basicsize__),
        ("size", ctypes.c_ssize_t),
        ("items", ctypes.c_void_p),
    )


def _read(objects: list[Any]) -> bytes:
    items = _List.from_address(id(objects)).items
    return ctypes.string_at(items, len(objects) * ctypes.sizeof(ctypes.c_void_p)) if items else b""


def _compute(objects: list[Any]) -> bytes:
    return array("Q", map(id, objects)).tobytes()


_SAMPLE: list[Any] = [None, "a", 1.5, ()]
_READABLE = ctypes.sizeof(ctypes.c_void_p) == 8 and _read(_SAMPLE) == _compute(_SAMPLE)


def addresses(objects: list[Any]) -> bytes:
    """The identities of a list's elements, in order; meaningful while somebody keeps the elements alive.

    >>> thing = object()
    >>> addresses([thing, None]) == addresses([thing, None]), addresses([thing]) == addresses([object()])
    (True, False)
    """
    return _read(objects) if _READABLE else _compute(objects)
