"""Containers as they were, and whether they still are so: asked at every call, of thousands of them, in microseconds.

A dict that nobody wrote to need not be looked into: CPython counts the writes, and torch's guards read the counter.
What else is a container (lists, sets, closures, functions' defaults) is compared element by element, as memory.
"""

from __future__ import annotations

import collections
import gc
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import torch

from .containers import ClassDict, Defaults, Forward, Globals
from .identity import addresses

_RESIZABLE = (dict, list, set, collections.deque)
_PARTS = attrgetter("__defaults__", "__kwdefaults__", "__code__")  # what `Defaults` yields
_FORWARD = attrgetter("forward")
Same = Callable[[Any, Any], bool]


@dataclass(slots=True)
class _Snapshot:
    """A container by name, and the elements that it had."""

    name: str
    view: Iterable[Any]
    elements: list[Any]


class Items:
    """Keys and values of a mapping, as a container."""

    def __init__(self, mapping: Any) -> None:
        self._mapping = mapping

    def __iter__(self) -> Iterator[Any]:
        return chain(self._mapping, self._mapping.values())


class Snapshots:
    """Elements of containers at the time when they were added.

    Args:
        same: whether two different objects, new and old, are worth the same.
    """

    def __init__(self, same: Same) -> None:
        self._same = same
        self._all: list[_Snapshot] = []
        self._empty: list[Any] = []
        self._dicts: list[dict[Any, Any]] = []
        self._in_dicts: list[_Snapshot] = []
        self._versions: list[int] = []
        self._resizable: list[Any] = []
        self._lengths: list[int] = []
        self._loose: list[Iterable[Any]] = []
        self._functions: list[types.FunctionType] = []
        self._classes: list[type] = []
        self._objects: list[Any] = []
        self._types: list[type] = []
        self._added: tuple[list[Any], list[Any], list[Any]] = ([], [], [])  # elements of the last three
        self._elements: list[Any] = []  # all of these together, once they were asked for
        self._addresses = b""

    def add(self, container: Any, name: str) -> None:
        """Remember the elements of a container: a builtin one, or one of `containers`."""
        mapping = isinstance(container, dict | types.MappingProxyType)
        view: Iterable[Any] = Items(container) if mapping else container
        snapshot = _Snapshot(name, view, list(view))
        self._all.append(snapshot)
        if not snapshot.elements and isinstance(container, _RESIZABLE):
            self._empty.append(container)  # most of a module's containers are its empty tables of hooks
            return
        counted = _counted(container)
        if counted is not None:
            self._dicts.append(counted)
            self._in_dicts.append(snapshot)
        elif isinstance(container, Defaults):
            self._functions.append(container.function)
            self._added[1].extend(snapshot.elements)
        elif isinstance(container, Forward) and isinstance(snapshot.elements[0], types.FunctionType):
            self._classes.append(container.cls)
            self._added[2].extend(snapshot.elements)
        else:
            self._loose.append(view)
            self._added[0].extend(snapshot.elements)
            if isinstance(container, _RESIZABLE):
                self._resizable.append(container)
                self._lengths.append(len(container))

    def add_type(self, item: Any) -> None:
        """Remember an object's class; somebody may give it another."""
        self._objects.append(item)
        self._types.append(type(item))

    def unchanged(self) -> bool:
        """Whether everything is still what it was. Loops run in C."""
        try:
            if any(self._empty) or list(map(len, self._resizable)) != self._lengths:
                return False
            if list(map(type, self._objects)) != self._types:
                return False
            versions = list(map(_version, self._dicts))
            if versions != self._versions and not self._same_dicts(versions):
                return False
            current = self._current()
        except RuntimeError:  # changed while iterating
            return False
        return addresses(current) == self._addresses or self._same_elements(current)

    def changes(self) -> list[str]:
        """Which containers differ from their snapshot, for people."""
        return [snapshot.name for snapshot in self._all if not self._equal(list(snapshot.view), snapshot.elements)]

    def _current(self) -> list[Any]:
        parts = chain.from_iterable(map(_PARTS, self._functions))
        return list(chain(chain.from_iterable(self._loose), parts, map(_FORWARD, self._classes)))

    def _same_dicts(self, versions: list[int]) -> bool:
        """Look into the dicts that were written to."""
        known = self._versions or [-1] * len(versions)
        for new, old, snapshot in zip(versions, known, self._in_dicts, strict=True):
            if new != old and not self._equal(list(snapshot.view), snapshot.elements):
                return False
        self._versions = versions
        return True

    def _same_elements(self, current: list[Any]) -> bool:
        was = self._elements or [*chain.from_iterable(self._added)]
        if not self._equal(current, was):
            return False
        self._elements, self._addresses = current, addresses(current)
        return True

    def _equal(self, new: list[Any], old: list[Any]) -> bool:
        return len(new) == len(old) and all(a is b or self._same(a, b) for a, b in zip(new, old, strict=True))


def _counted(container: Any) -> dict[Any, Any] | None:
    """The dict behind a container whose counter of writes tells of every change, or None."""
    if isinstance(container, Globals):
        container = container.scope
    elif isinstance(container, ClassDict):
        container = vars(container.cls)
    if isinstance(container, types.MappingProxyType):
        behind = gc.get_referents(container)
        container = behind[0] if len(behind) == 1 else None
    if not isinstance(container, dict) or isinstance(container, collections.OrderedDict):
        return None  # an OrderedDict changes its order without writing
    return container if _COUNTS else None


def _counts() -> bool:
    """Whether the counter can be read, and moves as it should."""
    if _version is None:
        return False
    thing = types.SimpleNamespace(a=1)
    seen = [_version(vars(thing))]
    thing.a = 2
    seen.append(_version(vars(thing)))
    vars(thing)["b"] = 3
    seen.append(_version(vars(thing)))
    del thing.a
    seen.append(_version(vars(thing)))
    return len(set(seen)) == len(seen) and _version(vars(thing)) == seen[-1]


_version: Any = getattr(getattr(getattr(torch._C, "_dynamo", None), "guards", None), "dict_version", None)
_COUNTS = _counts()
