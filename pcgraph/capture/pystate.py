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
import functools
import gc
import os
import random
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from . import codes
from .containers import ArrayBytes, Cells, ClassDict, Defaults, Globals, Local, Slots, Variable, without_tables
from .drawn import Drawn
from .objects import (
    BOUND,
    behind,
    hides_memory,
    is_atom,
    is_code,
    is_plain,
    is_users,
    plain_elements,
    plain_items,
    same_atom,
    slots_of,
)
from .purity import changes_settings, impure_call, impure_file, logs, reads_environment, reads_files, reseeds
from .snapshots import Snapshots
from .sources import is_internal

_LIMIT = 200_000
_REFERRED = (torch.nn.Module, weakref.WeakSet, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_ABOUT_CLASSES = frozenset({
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__slots__",
    "__match_args__", "__dataclass_fields__", "__dataclass_params__", "__orig_bases__", "__abstractmethods__",
    "__parameters__",
})  # fmt: skip


class PythonState:
    """Snapshots of containers (module ``__dict__``s, globals, closures, lists, dicts, configs)."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self._seen: set[int] = set()
        self._keep: list[Any] = []
        self._snapshots = Snapshots(same_atom)
        self._importing = 0
        self._modules: dict[types.ModuleType, set[str]] = {}
        self._types: set[type] = set()
        self.reseeded: str | None = None
        self.changed_settings: str | None = None
        # What ran: code in its namespace, by identity, since code that was made twice compares equal.
        self._ran: dict[tuple[int, int], tuple[types.CodeType, Any]] = {}
        self._functions: list[tuple[types.CodeType, Any]] = []  # that were found, and what of them was remembered
        self._answers_from_memory = False
        self._imported: dict[str, set[str]] = {}  # by `importlib.import_module`, and names that are asked of the module
        self._looked_into: set[int] = set()  # whose defaults were read, by code
        self._uncovered: list[types.CodeType] = []
        self._covered: set[int] = set()
        self._weak: list[tuple[weakref.ref[Any], str]] = []
        self._refers = False  # a module that is compared is read through a weak reference as well
        self._forgotten = False
        self._drawn = Drawn(self._reason)
        for module in (torch, torch.nn.functional, torch.linalg, torch.special, torch.fft, builtins):
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
        if not self._forgotten and self._snapshots.unchanged():
            return True
        if self._refers:  # the next run has to see which modules are still alive
            self.forget()
        return False

    def forget(self) -> None:
        """Let go of everything that was read; from now on, nothing is what it was."""
        self._forgotten, self._snapshots = True, Snapshots(same_atom)
        for held in (self._keep, self._ran, self._functions, self._methods, self._modules, self._weak, self._uncovered):
            held.clear()

    def changes(self) -> list[str]:
        """Which containers differ from their snapshot, for people."""
        return self._snapshots.changes()

    def changed_arrays(self) -> list[tuple[np.ndarray, str]]:
        """NumPy arrays that are not what they were, with names."""
        held = [(kept.array, name) for kept, name in self._snapshots.changed() if isinstance(kept, ArrayBytes)]
        return [(array, name) for array, name in held if isinstance(array, np.ndarray)]

    def knows(self, item: Any) -> bool:
        """Whether an object was there to be read: it is the same at every call."""
        return id(item) in self._seen

    def knows_none(self, items: Iterable[Any]) -> bool:
        """Whether none of these objects was there."""
        return self._seen.isdisjoint(map(id, items))

    # -- walking -------------------------------------------------------------------------------
    def read(self, value: Any, path: str) -> None:
        """Snapshot a value and everything reachable from it."""
        stack = [(value, path)]
        while stack:
            item, name = stack.pop()
            if isinstance(item, BOUND):
                item = behind(item)
            if is_atom(item) or id(item) in self._seen:
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
        if isinstance(item, np.void | np.ndarray):
            return self._open_array(item, name)
        if isinstance(item, int | float | complex | str | bytes):  # of a class of the user's
            return self._attributes(item, name)
        if isinstance(item, weakref.ref):
            self._weak.append((item, name))  # of what it refers to, more is known when everything was walked
            return []
        if isinstance(item, dict | types.MappingProxyType):
            self._snapshots.add(item, name)
            if isinstance(item, collections.defaultdict):
                self._snapshots.add(Slots(item, ["default_factory"]), name)
            factory = [(getattr(item, "default_factory", None), name)]
            keys = [(key, f"a key of {name}") for key, _ in plain_items(item) if type(key) is not str]
            inner = [(value, f"{name}[{key!r}]") for key, value in plain_items(item)]
            return [*self._attributes(item, name), *factory, *keys, *inner]
        if isinstance(item, list | set | frozenset | collections.deque | tuple):
            if not isinstance(item, tuple | frozenset):
                self._snapshots.add(item, name)
            elements = ((value, f"{name}[{i}]") for i, value in enumerate(plain_elements(item)))
            return [*self._attributes(item, name), *elements]
        if isinstance(item, types.FunctionType):
            self._covered.add(id(item.__code__))
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
            if isinstance(function, types.FunctionType) and is_users(function.__module__):
                self._enter(function.__globals__, function.__code__)
            return [(vars(item), name)]
        if isinstance(item, types.MethodType):
            return [(item.__self__, name), (item.__func__, name)]
        if isinstance(item, functools.partial):
            self._snapshots.add(Slots(item, ["func", "args", "keywords"]), name)
            return [(item.func, name), (item.args, name), (item.keywords, name), (vars(item), name)]
        if isinstance(item, types.ModuleType):
            self._read_module(item, None, name)
            return []
        if isinstance(item, type):
            return self._open_class(item, name)
        return self._open_object(item, name)

    def _open_class(self, cls: type, name: str) -> Iterable[tuple[Any, str]]:
        if not is_users(cls.__module__):
            return []
        attributes = ClassDict(cls)
        self._snapshots.add(attributes, f"class {cls.__qualname__}")
        self._methods += [v for v in vars(cls).values() if is_plain(v)]
        own = [(k, v) for k, v in vars(cls).items() if isinstance(v, types.FunctionType) or k not in _ABOUT_CLASSES]
        plain = [(v, f"{name}.{k}") for k, v in own if not is_plain(v)]
        return [*plain, *((base, base.__qualname__) for base in cls.__bases__)]

    def _open_object(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        if type(item) is object or type(item).__module__ == "_abc":
            return []  # sentinels, and the caches of abstract classes
        if isinstance(item, random.Random):
            self._drawn.meet(item, name)
            return []
        if isinstance(item, contextvars.ContextVar):
            self._snapshots.add(variable := Variable(item), name)
            return [(value, name) for value in variable]
        if isinstance(item, threading.local):
            self._snapshots.add(local := Local(item), name)
            return [(value, name) for value in local]
        if isinstance(item, contextlib._GeneratorContextManagerBase):  # a decorator: what it decorates with
            return [(item.func, name), (item.args, name), (item.kwds, name)]
        self._snapshots.add_type(item)
        attributes = getattr(item, "__dict__", None)
        slots = slots_of(type(item))
        inner: list[tuple[Any, str]] = []
        if isinstance(item, torch.nn.Module):
            self._open_module_class(type(item))
        elif is_users(type(item).__module__) and hides_memory(type(item)):
            self._cannot_compare(item, name)
        if slots:
            inner += [(getattr(item, slot, None), f"{name}.{slot}") for slot in slots]
            self._snapshots.add(Slots(item, slots), name)
        if isinstance(attributes, dict):
            self._snapshots.add(attributes, name)
            inner += [(v, f"{name}.{key}" if name else key) for key, v in without_tables(attributes)]
        if slots or isinstance(attributes, dict):
            return [(type(item), type(item).__qualname__), *inner]
        if callable(item) and getattr(type(item), "__module__", "").startswith(("torch", "numpy")):
            return []  # ufuncs, torch builtins
        self._cannot_compare(item, name)
        return []

    def _open_module_class(self, cls: type) -> None:
        """Torch's classes among a module's: somebody may patch a method, or put an attribute there."""
        for part in cls.__mro__:
            if part not in self._types and part is not object and not is_users(part.__module__):
                self._types.add(part)
                self._snapshots.add(ClassDict(part), f"class {part.__qualname__}")

    def _open_array(self, array: Any, name: str) -> Iterable[tuple[Any, str]]:
        if array.dtype.hasobject:
            self._cannot_compare(array, name)
        else:
            self._snapshots.add(ArrayBytes(array), name)
        return [(getattr(array, "__dict__", None), name)]

    def _cannot_compare(self, item: Any, name: str) -> None:
        self._reason(f"{name} is a {type(item).__module__}.{type(item).__qualname__}, whose state cannot be compared")

    def _attributes(self, item: Any, name: str) -> Iterable[tuple[Any, str]]:
        """Attributes that a subclass of a builtin type carries, and the class."""
        cls = type(item)
        if cls.__module__ in ("builtins", "collections") or not is_users(cls.__module__):
            return []
        slots = slots_of(cls)
        if slots:
            self._snapshots.add(Slots(item, slots), name)
        inner = [(getattr(item, slot, None), f"{name}.{slot}") for slot in slots]
        return [(getattr(item, "__dict__", None), name), (cls, cls.__qualname__), *inner]

    def _reason(self, text: str) -> None:
        if text not in self.reasons:
            self.reasons.append(text)

    # -- watching a run --------------------------------------------------------------------------
    @contextmanager
    def watching(self) -> Iterator[None]:
        """Profile the run of the current thread; another profiler is put back afterwards."""
        previous = sys.getprofile()
        self._drawn.open()
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
            scope = frame.f_globals
            if (imported := codes.called_to_import(frame)) is not None and frame.f_back is not None:
                self._imported.setdefault(imported, set()).update(frame.f_back.f_code.co_names)
            if isinstance(function := codes.looked_into(frame), types.FunctionType):
                self.read(function, function.__qualname__)
                self._looked_into.add(id(function.__code__))
            if (id(code), id(scope)) not in self._ran and not logs(frame):
                self._ran[id(code), id(scope)] = code, scope
                self._enter(scope, code)
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
        wanted = codes.global_names(code)
        read = {name: scope[name] for name in wanted if name in scope}
        if wanted:  # also what is not there yet, and what is a builtin so far
            self._snapshots.add(Globals(scope, wanted), f"globals of {code.co_filename}")
        for name, value in read.items():
            if isinstance(value, types.ModuleType):
                self._read_module(value, names, name)
            else:
                self.read(value, name)
        if any(name != "__class__" for name in code.co_freevars):
            self._uncovered.append(code)

    def _read_module(self, module: types.ModuleType, names: set[str] | None, path: str) -> None:
        """Snapshot a module: its data, and what is called by one of these names; None stands for any name."""
        numpy = module.__name__ == "numpy" and names is not None and "random" in names
        if numpy or module.__name__.startswith("numpy.random"):
            self._reason("uses numpy.random")
        scope = vars(module)
        if not is_users(module.__name__):
            if patchable := (names or set()) & scope.keys() - self._modules.setdefault(module, set()):  # ``math.pi``
                self._modules[module] |= patchable
                self._snapshots.add(Globals(scope, tuple(sorted(patchable))), path)
            return
        every = names is None or "getattr" in names  # by a name that is made up at run time
        wanted = {n for n, value in scope.items() if not n.startswith("__") and (every or not is_code(value))}
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
        self._drawn.close()
        ran = {id(code): code for code, _ in self._ran.values()}
        for code, scope in list(self._ran.values()):
            self._read_by_name(code, scope)
        for name in self._imported.keys() & sys.modules.keys():  # only now are all of them there
            self._read_module(sys.modules[name], self._imported[name], name)
        for reference, name in self._weak:
            self._refer(reference(), name)
        for method in self._methods:
            if id(method.__code__) in ran:  # an editor's reload exchanges the code
                self._snapshots.add(Defaults(method), f"code of {method.__qualname__}")
        inner = {id(c) for code in ran.values() for c in code.co_consts if isinstance(c, types.CodeType)}
        missing = [code for code in self._uncovered if id(code) not in self._covered and id(code) not in inner]
        if missing:
            self._read_functions(missing)
        if not (self._answers_from_memory or any(map(codes.looks_into_functions, ran.values()))):
            self._snapshots.leave_out(p for c, p in self._functions if id(c) not in ran.keys() | self._looked_into)

    def _read_by_name(self, code: types.CodeType, scope: dict[str, Any]) -> None:
        """Snapshot modules that a function gets by name, not as globals."""
        if is_internal(code.co_filename) or impure_file(code.co_filename) is not None:
            return
        if codes.reads_namespaces(code):
            self._reason(f"reads other namespaces than its own ({code.co_filename}:{code.co_firstlineno})")
        names = codes.modules_by_name(code, scope)
        if names is None and codes.only_asks_for_modules(code):
            self._snapshots.add(sys.modules, "the modules that are loaded")
        elif names is None:
            self._reason(f"looks modules up by names that are not known beforehand ({code.co_filename})")
        for name in names or ():
            self._read_module(sys.modules[name], set(code.co_names), name)

    def _refer(self, item: Any, name: str) -> None:
        """Something that is read through a weak reference: whoever compares it keeps it alive."""
        if isinstance(item, torch.Tensor | type | types.FunctionType | types.ModuleType):
            self.read(item, name)
        elif isinstance(item, _REFERRED) and id(item) in self._seen:
            self._refers = True
        elif item is not None:
            self._reason(f"{name} is a weak reference to a {type(item).__qualname__}")

    def _read_functions(self, missing: list[types.CodeType]) -> None:
        found: dict[int, list[types.FunctionType]] = {id(code): [] for code in missing}
        for holder in gc.get_referrers(*missing):
            if isinstance(holder, types.FunctionType) and id(holder.__code__) in found:
                found[id(holder.__code__)].append(holder)
        for functions in found.values():
            for function in functions:
                self.read(function, function.__qualname__)
