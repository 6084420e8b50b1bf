"""What kinds of objects there are to somebody who compares their state: atoms, wrappers, classes, hidden memory."""

from __future__ import annotations

import collections
import enum
import logging
import re
import sys
import threading
import types
import typing
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from .purity import impure_file
from .sources import is_internal

ATOMS = (
    int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), range, torch.dtype,
    torch.device, torch.layout, torch.memory_format, torch.Size, enum.Enum, types.BuiltinFunctionType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType, types.GetSetDescriptorType,
    types.MemberDescriptorType, property, classmethod, staticmethod, re.Pattern, logging.Logger, torch.Generator,
    torch._ops.OpOverload, torch._ops.OpOverloadPacket, slice, type(threading.Lock()), type(threading.RLock()),
    np.generic, np.dtype, torch.finfo, torch.iinfo, types.CodeType, type(torch.nn.attention.SDPBackend.MATH),
    types.UnionType, types.GenericAlias, typing.TypeVar, type(collections.namedtuple("_", "field").field),  # type: ignore[attr-defined]
)  # fmt: skip
BOUND = (types.BuiltinFunctionType, types.MethodWrapperType, staticmethod, classmethod, property)
_EQUAL = (np.generic, int, float, complex, str, bytes, bool, torch.Size, slice, range, torch.device)
_PLAIN = frozenset({int, float, complex, str, bytes, bool})


def same_atom(a: Any, b: Any) -> bool:
    """Equal values of one immutable type; 0.0 and -0.0 are not."""
    if type(a) is not type(b) or not isinstance(a, _EQUAL) or isinstance(a, np.void):
        return False
    return repr(a) == repr(b) if isinstance(a, float | complex) else a == b


def is_atom(item: Any) -> bool:
    """Whether nothing of an object can change, and nothing but its value can be read from it."""
    return isinstance(item, ATOMS) and not (isinstance(item, np.void) or _carries(item))


def _carries(item: Any) -> bool:
    """Whether a number or a text is of a class of its own, and may hold more than its value."""
    cls = type(item)
    if cls in _PLAIN or not issubclass(cls, int | float | complex | str | bytes):
        return False
    return not issubclass(cls, enum.Enum | np.generic) and is_users(cls.__module__)


def is_users(module: str) -> bool:
    """Whether a module is the user's (or a third party's), by name; what has no file is a notebook or a shell."""
    if module.split(".")[0] in ("torch", "numpy", "pcgraph", "builtins", *sys.builtin_module_names):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not (is_internal(file) or impure_file(file) is not None)


def is_code(value: Any) -> bool:
    """Modules, functions and classes."""
    return isinstance(value, types.ModuleType | types.FunctionType | types.BuiltinFunctionType | type)


def is_plain(value: Any) -> bool:
    """A function without state of its own."""
    function = isinstance(value, types.FunctionType)
    return function and not (value.__defaults__ or value.__kwdefaults__ or value.__closure__ or vars(value))


def behind(item: Any) -> Any:
    """What a bound or wrapped function holds: ``d.get`` a dict, a static method or a property its function."""
    if isinstance(item, property | staticmethod | classmethod):
        held = (item.fget, item.fset) if isinstance(item, property) else (item.__func__,)
        own = () if type(item) in (property, staticmethod, classmethod) else (getattr(item, "__dict__", None),)
        return (*held, *own)
    return None if isinstance(item.__self__, types.ModuleType | type) else item.__self__


def slots_of(cls: type) -> list[str]:
    """Names under which an object of a class has slots, private ones mangled."""
    found = []
    for owner in cls.__mro__:
        for slot in _as_tuple(owner.__dict__.get("__slots__", ())):
            private = slot.startswith("__") and not slot.endswith("__")
            if slot not in ("__weakref__", "__dict__"):
                found.append(f"_{owner.__name__.lstrip('_')}{slot}" if private else slot)
    return found


def hides_memory(cls: type) -> bool:
    """Whether objects of a class have memory that is neither attribute nor slot: a subclass of ``bytearray``, say."""
    if issubclass(cls, BaseException):
        return False
    named = sum(map(len, (_as_tuple(owner.__dict__.get("__slots__", ())) for owner in cls.__mro__)))
    return cls.__itemsize__ != 0 or cls.__basicsize__ > object.__basicsize__ + _WORD * (2 + named)


_WORD = 8


def plain_items(mapping: Any) -> Iterable[tuple[Any, Any]]:
    """What is in a mapping, whatever a class of its own says of it."""
    if isinstance(mapping, collections.OrderedDict):
        return collections.OrderedDict.items(mapping)
    return dict.items(mapping) if isinstance(mapping, dict) else mapping.items()


def plain_elements(container: Any) -> list[Any]:
    """What is in a builtin container or one derived from it, whatever a class of its own says of it."""
    kinds = (list, tuple, set, frozenset, collections.deque)
    kind: Any = next((kind for kind in kinds if isinstance(container, kind)), None)
    return list(container if kind is None else kind.__iter__(container))


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
