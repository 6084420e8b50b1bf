"""Pickles as data sets hold them, read without running anything that they say: dicts, lists, bytes and byte arrays.

A pickle is a program. Here it is looked through before it runs, the instructions that such data needs are the only ones
let through, and the few names that it may call stand for what is in this file.

Source: the instructions are listed in the standard library's ``pickletools``.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import PCGraphError

_OPCODES = frozenset(
    "PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 "
    "STRING BINSTRING SHORT_BINSTRING SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES "
    "EMPTY_DICT DICT SETITEM SETITEMS EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD".split()
)
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_MOST_REMEMBERED = 1_000_000  # the unpickler makes room for as many objects as the largest number of one


class _Kind:
    """Stands for ``numpy.dtype``."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like mean nothing for bytes."""


class _Array:
    """Stands for ``numpy.ndarray`` and what makes one; takes nothing but whole bytes of the size it claims."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[np.uint8] | None = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, _Kind) or kind.code not in ("u1", b"u1"):
            raise ValueError("an array of something else than unsigned bytes")
        if not isinstance(data, bytes) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
            raise ValueError("an array whose content is not bytes")
        if any(n < 0 for n in shape) or prod(shape) != len(data):
            raise ValueError(f"an array of shape {shape} with {len(data):,} bytes")
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _encoded(text: object, encoding: object) -> bytes:
    """Stands for ``_codecs.encode``, by which Python 3 writes bytes for readers in Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("text in another encoding than latin1")
    return text.encode("latin1")


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encoded,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _NAMES.get((module, name))
        if known is None:
            raise ValueError(f"it asks for {module}.{name}")
        return known


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in a file: its keys as text, arrays as uint8, text of Python 2 as bytes.

    Raises:
        PCGraphError: the file cannot be read, is damaged, or asks for anything but arrays of bytes.
    """
    try:
        data = path.read_bytes()
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name not in _OPCODES:
                raise ValueError(f"it has the instruction {opcode.name}")
            if opcode.name in _PUT and not 0 <= int(argument or 0) < _MOST_REMEMBERED:
                raise ValueError(f"it remembers an object as number {argument}")
        content = _Reader(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # damaged pickles raise nearly everything
        raise PCGraphError(
            f"{path} is not a pickle of bytes and arrays of bytes, and was not loaded: {error}",
            hint="do not trust the file: get the data set again from its authors",
        ) from error
    if not isinstance(content, dict):
        raise PCGraphError(f"{path} holds a {type(content).__name__}, expected a dict", hint="get the data set again")
    return {_text(key): value.array if isinstance(value, _Array) else value for key, value in content.items()}


def _text(key: object) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)
