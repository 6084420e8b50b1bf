"""Everything Python that a run read: snapshots that are compared before a captured graph is used again.

Two sources. The module tree is walked before the run. During the run a profile hook sees every Python function
that is entered (its globals and closure are then walked) and every C function that is called (one that is not
known to be pure makes the run unrepeatable). What cannot be compared is listed in `reasons`: such a graph is
valid for one call only and is captured again at the next.
"""

from __future__ import annotations

import collections
import enum
import functools
import gc
import logging
import re
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import is_
from typing import Any

import numpy as np
import torch

from .purity import impure_call, impure_file
from .recorder import is_internal

_ATOMS = (
    int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), range, torch.dtype,
    torch.device, torch.layout, torch.memory_format, torch.Size, enum.Enum, types.BuiltinFunctionType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType, types.GetSetDescriptorType,
    types.MemberDescriptorType, property, classmethod, staticmethod, re.Pattern, logging.Logger, torch.Generator,
    torch._ops.OpOverload, torch._ops.OpOverloadPacket, slice, type(threading.Lock()), type(threading.RLock()),
    weakref.ref, torch.Tensor, torch.dtype, torch.finfo, torch.iinfo, types.CodeType,
)  # fmt: skip
_EQUAL_ATOMS = (int, float, complex, str, bytes, bool, torch.Size, slice, range, torch.device)
_LIMIT = 200_000


class PythonState:
    """Snapshots of containers (module ``__dict__``s, globals, closures, lists, dicts, configs)."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._seen: set[int] = set()
        self._keep: list[Any] = []
        self._containers: list[Any] = []  # dicts, lists, ... compared element by element
        self._names: list[str] = []
        self._importing = 0
        self._keys: list[list[Any]] = []
        self._values: list[Any] = []
        self._lengths: list[int] = []
        self._codes: set[types.CodeType] = set()
        self._uncovered: dict[types.CodeType, str] = {}
        self._covered: set[types.CodeType] = set()

    # -- comparing -----------------------------------------------------------------------------
    def unchanged(self) -> bool:
        """Whether everything that was read is still what it was. Microseconds per module."""
        try:
            if list(map(len, self._containers)) != self._lengths:
                return False
            current = list(chain.from_iterable(map(_elements, self._containers)))
            if not all(map(is_, current, self._values)):
                return self._same_slowly(current)
        except RuntimeError:  # changed while iterating
            return False
        return all(list(c) == k for c, k in zip(self._containers, self._keys, strict=True) if k)

    def _same_slowly(self, current: list[Any]) -> bool:
        for new, old in zip(current, self._values, strict=True):
            if new is old:
                continue
            if type(new) is not type(old) or not isinstance(new, _EQUAL_ATOMS) or new != old:
                return False
        self._values = current
        return True

    def changes(self) -> list[str]:
        """Which containers differ from their snapshot, for people."""
        found = []
        position = 0
        for container, length, path in zip(self._containers, self._lengths, self._names, strict=True):
            old = self._values[position : position + length]
            position += length
            new = list(_elements(container))
            if len(new) != length or not all(
                a is b or (type(a) is type(b) and isinstance(a, _EQUAL_ATOMS) and a == b)
                for a, b in zip(new, old, strict=False)
            ):
                found.append(path)
        return found

    # -- walking -------------------------------------------------------------------------------
    def read(self, value: Any, path: str) -> None:
        """Snapshot a value and everything reachable from it."""
        stack = [(value, path)]
        while stack:
            item, name = stack.pop()
            if isinstance(item, _ATOMS) or id(item) in self._seen:
                continue
            if len(self._seen) > _LIMIT:
                self._reason("the model reads more Python objects than can be compared")
                return
            self._seen.add(id(item))
            self._keep.append(item)
            stack.extend(self._open(item, name))

    def _open(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        if isinstance(item, dict):
            self._snapshot(item, name)
            return [(value, f"{name}[{key!r}]") for key, value in item.items()]
        if isinstance(item, list | set | frozenset | collections.deque | tuple):
            if not isinstance(item, tuple | frozenset):
                self._snapshot(item, name)
            return [(value, f"{name}[{i}]") for i, value in enumerate(item)]
        if isinstance(item, types.FunctionType):
            self._covered.add(item.__code__)
            parts: list[tuple[Any, str]] = [(item.__defaults__, name), (item.__kwdefaults__, name)]
            if item.__closure__ and not is_internal(item.__code__.co_filename):
                cells = _Cells(item.__closure__)
                self._snapshot(cells, f"closure of {item.__qualname__}")
                parts += [(value, f"{name}.{n}") for value, n in zip(cells, item.__code__.co_freevars, strict=False)]
            return parts
        if isinstance(item, types.MethodType):
            return [(item.__self__, name), (item.__func__, name)]
        if isinstance(item, functools.partial):
            return [(item.func, name), (item.args, name), (item.keywords, name)]
        if isinstance(item, types.ModuleType):
            return []
        if isinstance(item, type):
            return self._open_class(item, name)
        if isinstance(item, types.MappingProxyType):
            return []
        return self._open_object(item, name)

    def _open_class(self, cls: type, name: str) -> Iterable[tuple[Any, str]]:
        module = sys.modules.get(cls.__module__)
        file = getattr(module, "__file__", None)
        if file is None or is_internal(file) or impure_file(file) is not None:
            return []
        attributes = _ClassDict(cls)
        self._snapshot(attributes, f"class {cls.__qualname__}")
        plain = [(v, f"{name}.{k}") for k, v in vars(cls).items() if not k.startswith("__") and not callable(v)]
        return [*plain, *((base, base.__qualname__) for base in cls.__bases__)]

    def _open_object(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        if isinstance(item, np.ndarray) and item.dtype != object:
            self._snapshot(_Array(item), name)
            return []
        attributes = getattr(item, "__dict__", None)
        slots = [s for c in type(item).__mro__ for s in _as_tuple(c.__dict__.get("__slots__", ()))]
        if isinstance(attributes, dict):
            self._snapshot(attributes, name)
            inner = [(value, f"{name}.{key}" if name else key) for key, value in attributes.items()]
            return [(type(item), type(item).__qualname__), *inner]
        if slots:
            values = [(getattr(item, slot, None), f"{name}.{slot}") for slot in slots if slot != "__weakref__"]
            self._snapshot(_Slots(item, slots), name)
            return values
        if callable(item) and getattr(type(item), "__module__", "").startswith(("torch", "numpy")):
            return []  # ufuncs, torch builtins
        self._reason(f"{name} is a {type(item).__module__}.{type(item).__qualname__}, whose state cannot be compared")
        return []

    def _snapshot(self, container: Any, name: str) -> None:
        self._containers.append(container)
        self._names.append(name)
        self._lengths.append(len(container))
        self._keys.append(list(container) if isinstance(container, dict) else [])
        self._values.extend(_elements(container))

    def _reason(self, text: str) -> None:
        if text not in self.reasons:
            self.reasons.append(text)

    # -- watching a run --------------------------------------------------------------------------
    @contextmanager
    def watching(self) -> Iterator[None]:
        """Profile the run of the current thread; another profiler is put back afterwards."""
        previous = sys.getprofile()
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)
            if previous is not None:
                enable = getattr(previous, "enable", None)
                enable() if enable is not None else sys.setprofile(previous)
            self._close()

    def _event(self, frame: types.FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if code.co_name == "_find_and_load" and code.co_filename.startswith("<frozen importlib"):
            self._importing += {"call": 1, "return": -1}.get(event, 0)
        if self._importing:
            return  # what runs at import runs once, whoever triggers it
        if event == "call":
            if code not in self._codes:
                self._codes.add(code)
                self._enter(frame, code)
        elif event == "c_call" and not is_internal(code.co_filename) and impure_file(code.co_filename) is None:
            what = impure_call(arg)
            if what is not None:
                self._reason(f"calls {what} ({code.co_filename}:{frame.f_lineno})")

    def _enter(self, frame: types.FrameType, code: types.CodeType) -> None:
        if is_internal(code.co_filename):
            return
        impure = impure_file(code.co_filename)
        if impure is not None:
            if impure:
                self._reason(f"calls {code.co_qualname} of {impure}")
            return
        names = set(code.co_names)
        scope = frame.f_globals
        read = {name: scope[name] for name in names if name in scope}
        if read:
            view = _Names(scope, tuple(read))
            self._snapshot(view, f"globals of {code.co_filename}")
        for name, value in read.items():
            if isinstance(value, types.ModuleType):
                self._read_module(value, names, name)
            else:
                self.read(value, name)
        if any(name != "__class__" for name in code.co_freevars):
            self._uncovered[code] = f"{code.co_filename}:{code.co_firstlineno}"

    def _read_module(self, module: types.ModuleType, names: set[str], path: str) -> None:
        if module.__name__.split(".")[0] == "numpy" and "random" in names:
            self._reason("uses numpy.random")
        file = getattr(module, "__file__", None)
        if file is None or is_internal(file) or impure_file(file) is not None:
            return
        scope = vars(module)
        used = tuple(name for name in names if name in scope)
        if used:
            self._snapshot(_Names(scope, used), path)
            for name in used:
                if not isinstance(scope[name], types.ModuleType):
                    self.read(scope[name], f"{path}.{name}")

    def _close(self) -> None:
        """Find the closures of functions that were called but are not reachable from what was walked."""
        inner = {c for code in self._codes for c in code.co_consts if isinstance(c, types.CodeType)}
        missing = [code for code in self._uncovered if code not in self._covered and code not in inner]
        if not missing:
            return
        found: dict[types.CodeType, list[types.FunctionType]] = {code: [] for code in missing}
        for holder in gc.get_referrers(*missing):
            if isinstance(holder, types.FunctionType) and holder.__code__ in found:
                found[holder.__code__].append(holder)
        for functions in found.values():
            for function in functions:
                self.read(function, function.__qualname__)


def _elements(container: Any) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


class _Cells:
    """The contents of a function's closure cells, as a container."""

    def __init__(self, cells: tuple[types.CellType, ...]) -> None:
        self._cells = cells

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[Any]:
        for cell in self._cells:
            try:
                yield cell.cell_contents
            except ValueError:
                yield None  # empty


class _Slots:
    """The slots of an object, as a container."""

    def __init__(self, item: Any, slots: list[str]) -> None:
        self._item, self._slots = item, [s for s in slots if s != "__weakref__"]

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self._item, slot, None) for slot in self._slots)


class _Names:
    """Some names of a namespace, as a container."""

    def __init__(self, scope: dict[str, Any], names: tuple[str, ...]) -> None:
        self._scope, self._names = scope, names

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Any]:
        missing = self
        return (self._scope.get(name, missing) for name in self._names)


class _Array:
    """The bytes of a NumPy array, as a container."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Any]:
        yield self._array.tobytes()


class _ClassDict:
    """The attributes of a class, as a container."""

    def __init__(self, cls: type) -> None:
        self._cls = cls

    def __len__(self) -> int:
        return len(vars(self._cls))

    def __iter__(self) -> Iterator[Any]:
        return iter(list(vars(self._cls).values()))
