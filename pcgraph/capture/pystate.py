"""Everything Python that a run read: snapshots that are compared before a captured graph is used again.

Two sources. The module tree is walked before the run. During the run a profile hook sees every Python function
that is entered (its globals and closure are then walked) and every C function that is called (one that is not
known to be pure makes the run unrepeatable). What cannot be compared is listed in `reasons`: such a graph is
valid for one call only and is captured again at the next.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import contextvars
import enum
import functools
import gc
import logging
import os
import random
import re
import sys
import threading
import types
import typing
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .codes import global_names, imported_names, looks_into_functions
from .containers import ArrayBytes, Cells, ClassDict, Defaults, Forward, Globals, Slots, Variable, without_tables
from .purity import changes_settings, impure_call, impure_file, logs, reads_environment, reads_files, reseeds
from .snapshots import Snapshots
from .sources import is_internal

_ATOMS = (
    int, float, complex, str, bytes, bool, type(None), type(Ellipsis), type(NotImplemented), range, torch.dtype,
    torch.device, torch.layout, torch.memory_format, torch.Size, enum.Enum, types.BuiltinFunctionType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType, types.GetSetDescriptorType,
    types.MemberDescriptorType, property, classmethod, staticmethod, re.Pattern, logging.Logger, torch.Generator,
    torch._ops.OpOverload, torch._ops.OpOverloadPacket, slice, type(threading.Lock()), type(threading.RLock()),
    np.generic, np.dtype, torch.finfo, torch.iinfo, types.CodeType,
    types.UnionType, types.GenericAlias, typing.TypeVar, type(collections.namedtuple("_", "field").field),  # type: ignore[attr-defined]
)  # fmt: skip
_BOUND = (
    types.BuiltinFunctionType, types.MethodWrapperType, staticmethod, classmethod, property
)  # fmt: skip
_EQUAL_ATOMS = (np.generic, int, float, complex, str, bytes, bool, torch.Size, slice, range, torch.device)
_LIMIT = 200_000


class PythonState:
    """Snapshots of containers (module ``__dict__``s, globals, closures, lists, dicts, configs)."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._seen: set[int] = set()
        self._keep: list[Any] = []
        self._snapshots = Snapshots(_same_atom)
        self._importing = 0
        self._modules: dict[types.ModuleType, set[str]] = {}
        self._types: set[type] = set()
        self.reseeded: str | None = None
        self.changed_settings: str | None = None
        self._codes: set[types.CodeType] = set()  # that ran
        self._functions: list[tuple[types.CodeType, Any]] = []  # that were found, and what of them was remembered
        self._answers_from_memory = False
        self._uncovered: dict[types.CodeType, str] = {}
        self._covered: set[types.CodeType] = set()

        for module in (torch, torch.nn.functional, builtins):
            scope = vars(module)
            self._snapshots.add(Globals(scope, tuple(scope)), module.__name__)  # somebody may patch a function
        self._methods: list[types.FunctionType] = []
        self._snapshots.add(ClassDict(torch.Tensor), "torch.Tensor")
        for name in ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks"):
            self._snapshots.add(getattr(torch.nn.modules.module, name), "hooks on all modules")
        self._snapshots.add(torch.nn.modules.module._global_backward_pre_hooks, "hooks on all modules")

    # -- comparing -----------------------------------------------------------------------------
    def unchanged(self) -> bool:
        """Whether everything that was read is still what it was."""
        return self._snapshots.unchanged()

    def changes(self) -> list[str]:
        """Which containers differ from their snapshot, for people."""
        return self._snapshots.changes()

    def knows(self, item: Any) -> bool:
        """Whether an object was there to be read: it is the same at every call."""
        return id(item) in self._seen

    # -- walking -------------------------------------------------------------------------------
    def read(self, value: Any, path: str) -> None:
        """Snapshot a value and everything reachable from it."""
        stack = [(value, path)]
        while stack:
            item, name = stack.pop()
            if isinstance(item, _BOUND):
                item = _owner(item)
            if (isinstance(item, _ATOMS) and not _carries(item)) or id(item) in self._seen:
                continue
            if len(self._seen) > _LIMIT:
                self._reason("the model reads more Python objects than can be compared")
                return
            self._seen.add(id(item))
            self._keep.append(item)
            stack.extend(self._open(item, name))

    def _open(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        if isinstance(item, torch.Tensor):
            return [(vars(item), name)]  # somebody may put something there
        if isinstance(item, _ATOMS):
            return self._attributes(item, name)
        if isinstance(item, weakref.ref):
            return [(item(), name)]
        if isinstance(item, dict | types.MappingProxyType):
            self._snapshots.add(item, name)
            keys = [(key, f"a key of {name}") for key in item if type(key) is not str]
            inner = [(value, f"{name}[{key!r}]") for key, value in item.items()]
            return [*self._attributes(item, name), *keys, *inner]
        if isinstance(item, list | set | frozenset | collections.deque | tuple):
            if not isinstance(item, tuple | frozenset):
                self._snapshots.add(item, name)
            return [*self._attributes(item, name), *((value, f"{name}[{i}]") for i, value in enumerate(item))]
        if isinstance(item, types.FunctionType):
            self._covered.add(item.__code__)
            if is_internal(item.__code__.co_filename):
                return [(cell, name) for cell in Cells(item.__closure__ or ())]  # a decorator of torch's
            self._snapshots.add(defaults := Defaults(item), f"defaults of {item.__qualname__}")
            self._functions.append((item.__code__, defaults))
            parts: list[tuple[Any, str]] = [(item.__defaults__, name), (item.__kwdefaults__, name), (vars(item), name)]
            if item.__closure__:
                cells = Cells(item.__closure__)
                self._snapshots.add(cells, f"closure of {item.__qualname__}")
                self._functions.append((item.__code__, cells))
                parts += [(value, f"{name}.{n}") for value, n in zip(cells, item.__code__.co_freevars, strict=False)]
            return parts
        if isinstance(item, functools._lru_cache_wrapper):
            # It answers from memory, out of sight. Once that is cleared, its function decides, though it never ran.
            self._answers_from_memory = True
            function = item.__wrapped__
            if isinstance(function, types.FunctionType) and _is_users(function.__module__):
                self._enter(function.__globals__, function.__code__)
            return [(vars(item), name)]
        if isinstance(item, types.MethodType):
            return [(item.__self__, name), (item.__func__, name)]
        if isinstance(item, functools.partial):
            self._snapshots.add(Slots(item, ["func", "args", "keywords"]), name)
            return [(item.func, name), (item.args, name), (item.keywords, name)]
        if isinstance(item, types.ModuleType):
            self._read_module(item, None, name)
            return []
        if isinstance(item, type):
            return self._open_class(item, name)
        return self._open_object(item, name)

    def _open_class(self, cls: type, name: str) -> Iterable[tuple[Any, str]]:
        if not _is_users(cls.__module__):
            return []
        attributes = ClassDict(cls)
        self._snapshots.add(attributes, f"class {cls.__qualname__}")
        self._methods += [v for v in vars(cls).values() if _is_plain(v)]
        own = [(k, v) for k, v in vars(cls).items() if isinstance(v, types.FunctionType) or not k.startswith("__")]
        plain = [(v, f"{name}.{k}") for k, v in own if not _is_plain(v)]
        return [*plain, *((base, base.__qualname__) for base in cls.__bases__)]

    def _open_object(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        if type(item) is object or type(item).__module__ == "_abc":
            return []  # sentinels, and the caches of abstract classes
        if isinstance(item, random.Random):
            self._reason(f"{name} is a random number generator")
            return []
        if isinstance(item, contextvars.ContextVar):
            self._snapshots.add(Variable(item), name)
            return [(item.get(None), name)]
        if isinstance(item, contextlib._GeneratorContextManagerBase):  # a decorator: what it decorates with
            return [(item.func, name), (item.args, name), (item.kwds, name)]
        if isinstance(item, np.ndarray) and item.dtype != object:
            self._snapshots.add(ArrayBytes(item), name)
            return []
        self._snapshots.add_type(item)
        attributes = getattr(item, "__dict__", None)
        slots = [s for c in type(item).__mro__ for s in _as_tuple(c.__dict__.get("__slots__", ()))]
        inner: list[tuple[Any, str]] = []
        if isinstance(item, torch.nn.Module) and type(item) not in self._types:
            self._types.add(type(item))
            self._snapshots.add(Forward(type(item)), f"{type(item).__qualname__}.forward")
        if slots:
            named = [slot for slot in slots if slot not in ("__weakref__", "__dict__")]
            named = [_mangled(type(item), slot) for slot in named]
            inner += [(getattr(item, slot, None), f"{name}.{slot}") for slot in named]
            self._snapshots.add(Slots(item, named), name)
        if isinstance(attributes, dict):
            self._snapshots.add(attributes, name)
            inner += [(v, f"{name}.{key}" if name else key) for key, v in without_tables(attributes)]
        if slots or isinstance(attributes, dict):
            return [(type(item), type(item).__qualname__), *inner]
        if callable(item) and getattr(type(item), "__module__", "").startswith(("torch", "numpy")):
            return []  # ufuncs, torch builtins
        self._reason(f"{name} is a {type(item).__module__}.{type(item).__qualname__}, whose state cannot be compared")
        return []

    def _attributes(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        """Attributes that a subclass of a builtin type carries, and the class."""
        cls = type(item)
        if cls.__module__ in ("builtins", "collections") or not _is_users(cls.__module__):
            return []
        slots = [slot for c in cls.__mro__ for slot in _as_tuple(c.__dict__.get("__slots__", ()))]
        named = [_mangled(cls, slot) for slot in slots if slot not in ("__weakref__", "__dict__")]
        if named:
            self._snapshots.add(Slots(item, named), name)
        inner = [(getattr(item, slot, None), f"{name}.{slot}") for slot in named]
        return [(getattr(item, "__dict__", None), name), (cls, cls.__qualname__), *inner]

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
            if code not in self._codes and not logs(frame):
                self._codes.add(code)
                self._enter(frame.f_globals, code)
        elif event == "c_call" and isinstance(getattr(arg, "__self__", None), contextvars.ContextVar):
            self.read(arg.__self__, f"context variable {arg.__self__.name}")
        elif event == "c_call" and reads_files(code.co_filename, arg):
            self._reason(f"reads files ({code.co_qualname})")
        elif event == "c_call" and not is_internal(code.co_filename) and impure_file(code.co_filename) is None:
            what = impure_call(arg)
            if what is not None:
                self._reason(f"calls {what} ({code.co_filename}:{frame.f_lineno})")

    def _enter(self, scope: dict[str, Any], code: types.CodeType) -> None:
        if reads_environment(code.co_filename, code.co_qualname):
            self.read(os.environ, "os.environ")
        if is_internal(code.co_filename):
            if reseeds(code.co_filename, code.co_name):
                self.reseeded = f"torch's {code.co_name}()"
            if changes_settings(code.co_filename, code.co_name):
                self.changed_settings = f"torch's {code.co_name}()"
            return
        impure = impure_file(code.co_filename)
        if impure is not None:
            if impure:
                self._reason(f"calls {code.co_qualname} of {impure}")
            return
        names = set(code.co_names)
        if not names.isdisjoint(("getattr", "hasattr")):
            names.update(c for c in code.co_consts if type(c) is str and c.isidentifier())
        wanted = global_names(code)
        read = {name: scope[name] for name in wanted if name in scope}
        if wanted:  # also what is not there yet, and what is a builtin so far
            self._snapshots.add(Globals(scope, wanted), f"globals of {code.co_filename}")
        for name, value in read.items():
            if isinstance(value, types.ModuleType):
                self._read_module(value, names, name)
            else:
                self.read(value, name)
        if any(name != "__class__" for name in code.co_freevars):
            self._uncovered[code] = f"{code.co_filename}:{code.co_firstlineno}"

    def _read_module(self, module: types.ModuleType, names: set[str] | None, path: str) -> None:
        """Snapshot a module: its data, and what is called by one of these names; None stands for any name."""
        numpy = module.__name__ == "numpy" and names is not None and "random" in names
        if numpy or module.__name__.startswith("numpy.random"):
            self._reason("uses numpy.random")
        if not _is_users(module.__name__):
            return
        scope = vars(module)
        every = names is None or "getattr" in names  # by a name that is made up at run time
        wanted = {n for n, value in scope.items() if not n.startswith("__") and (every or not _is_code(value))}
        known = self._modules.setdefault(module, set())
        wanted = (wanted | (names or set())) - known
        if not wanted:
            return
        known |= wanted
        # With names that are not there yet; where any may be asked for, with all that there are.
        self._snapshots.add(scope if names is None else Globals(scope, tuple(sorted(wanted))), path)
        for name in sorted(wanted & scope.keys()):
            if isinstance(scope[name], types.ModuleType):
                self._read_module(scope[name], names or set(), f"{path}.{name}")
            else:
                self.read(scope[name], f"{path}.{name}")

    def _close(self) -> None:
        """Find what is known of functions only now that they ran: code, imports, closures that were not walked."""
        for method in self._methods:
            if method.__code__ in self._codes:  # an editor's reload exchanges the code
                self._snapshots.add(Defaults(method), f"code of {method.__qualname__}")
        for code in self._codes:
            for name in () if is_internal(code.co_filename) else imported_names(code):
                if name in sys.modules:
                    self._read_module(sys.modules[name], set(code.co_names), name)
        inner = {c for code in self._codes for c in code.co_consts if isinstance(c, types.CodeType)}
        missing = [code for code in self._uncovered if code not in self._covered and code not in inner]
        if missing:
            self._read_functions(missing)
        if not (self._answers_from_memory or any(looks_into_functions(code) for code in self._codes)):
            self._snapshots.leave_out(part for code, part in self._functions if code not in self._codes)

    def _read_functions(self, missing: list[types.CodeType]) -> None:
        found: dict[types.CodeType, list[types.FunctionType]] = {code: [] for code in missing}
        for holder in gc.get_referrers(*missing):
            if isinstance(holder, types.FunctionType) and holder.__code__ in found:
                found[holder.__code__].append(holder)
        for functions in found.values():
            for function in functions:
                self.read(function, function.__qualname__)


def _same_atom(a: Any, b: Any) -> bool:
    """Equal values of one immutable type; 0.0 and -0.0 are not."""
    if type(a) is not type(b) or not isinstance(a, _EQUAL_ATOMS):
        return False
    return repr(a) == repr(b) if isinstance(a, float | complex) else a == b


def _carries(item: Any) -> bool:
    """Whether a number or a text is of a class of its own, and may hold more than its value."""
    cls = type(item)
    if cls in _PLAIN or not issubclass(cls, int | float | complex | str | bytes):
        return False
    return not issubclass(cls, enum.Enum | np.generic) and _is_users(cls.__module__)


_PLAIN = frozenset({int, float, complex, str, bytes, bool})


def _is_users(module: str) -> bool:
    """Whether a module is the user's (or a third party's), by name; what has no file is a notebook or a shell."""
    if module.split(".")[0] in ("torch", "numpy", "pcgraph", "builtins", *sys.builtin_module_names):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not (is_internal(file) or impure_file(file) is not None)


def _is_code(value: Any) -> bool:
    return isinstance(value, types.ModuleType | types.FunctionType | types.BuiltinFunctionType | type)


def _is_plain(value: Any) -> bool:
    """A function without state of its own."""
    function = isinstance(value, types.FunctionType)
    return function and not (value.__defaults__ or value.__kwdefaults__ or value.__closure__ or vars(value))


def _owner(item: Any) -> Any:
    """What a bound or wrapped function holds: ``d.get`` a dict, a static method or a property its function."""
    if isinstance(item, property):
        return (item.fget, item.fset)
    if isinstance(item, staticmethod | classmethod):
        return item.__func__
    return None if isinstance(item.__self__, types.ModuleType | type) else item.__self__


def _mangled(cls: type, slot: str) -> str:
    """The attribute's name of a private slot."""
    if not slot.startswith("__") or slot.endswith("__"):
        return slot
    owners = [c for c in cls.__mro__ if slot in _as_tuple(c.__dict__.get("__slots__", ()))]
    return f"_{owners[0].__name__.lstrip('_')}{slot}"


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
