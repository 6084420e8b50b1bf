"""Containers as they were, and whether they still are so: asked at every call, of thousands of them, in microseconds.

Most need not be looked into: one word of memory tells whether anybody wrote to them (`words`). What has no such word
is compared element by element (`loose`).
"""

from __future__ import annotations

import collections
import gc
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .containers import Cells, ClassDict, Defaults, Elements, Globals, Items, Slots, Type
from .loose import Loose, Same, equal
from .words import Words, slot_places

_RESIZABLE = (dict, list, set, collections.deque)  # most of a module's containers are its empty tables of hooks


@dataclass(slots=True)
class _Snapshot:
    """A container by name, and the elements that it had."""

    name: str
    container: Any
    view: Iterable[Any]
    elements: list[Any]


class Snapshots:
    """Elements of containers at the time when they were added.

    Args:
        same: whether two different objects, new and old, are worth the same.
    """

    def __init__(self, same: Same) -> None:
        self._same = same
        self._all: list[_Snapshot] = []
        self._without: frozenset[int] = frozenset()
        self._arranged = False  # into those that words tell of, and the others
        self._words = Words()
        self._told: list[_Snapshot] = []  # by word
        self._were: Any = None  # the words when everything was as it should be; None before anybody asked
        self._bytes = b"nobody asked"
        self._loose: Loose | None = None

    def add(self, container: Any, name: str) -> None:
        """Remember the elements of a container: a builtin one, or one of `containers`."""
        view: Iterable[Any] = container
        if isinstance(container, dict | types.MappingProxyType):
            view = Items(container)
        elif isinstance(container, _RESIZABLE) and type(container) not in _RESIZABLE:
            view = Elements(container)
        self._all.append(_Snapshot(name, container, view, list(view)))
        self._arranged = False

    def add_type(self, item: Any) -> None:
        """Remember an object's class."""
        self.add(Type(item), f"the class of a {type(item).__qualname__}")

    def leave_out(self, containers: Iterable[Any]) -> None:
        """Whatever becomes of these, which were added, is of no account."""
        self._without = frozenset(map(id, containers))
        self._arranged = False

    def unchanged(self) -> bool:
        """Whether everything is still what it was."""
        if not self._arranged:
            self._arrange()
        words = self._words.read()
        if words.tobytes() != self._bytes:
            if not self._same_told(words):
                return False
            self._were, self._bytes = words, words.tobytes()
        return self._loose is None or self._loose.unchanged()

    def _counting(self) -> Iterable[_Snapshot]:
        return (snapshot for snapshot in self._all if id(snapshot.container) not in self._without)

    def _arrange(self) -> None:
        self._words, self._told, self._were, self._bytes = Words(), [], None, b"something is new"
        loose = []
        for snapshot in self._counting():
            container = snapshot.container
            words = _words_of(container)
            told = bool(words) and all([self._words.add(item, field) for item, field in words])
            self._told += [snapshot] * (len(self._words) - len(self._told))
            if not told or (snapshot.elements and _only_counts(words)):
                loose.append((snapshot.view, snapshot.elements))
        self._loose = Loose(loose, self._same) if loose else None
        self._arranged = True

    def changes(self) -> list[str]:
        """The names of containers that differ from their snapshot."""
        return [name for _, name in self.changed()]

    def changed(self) -> list[tuple[Any, str]]:
        """Which containers differ from their snapshot, with names."""
        return [(kept.container, kept.name) for kept in self._counting() if not self._as_it_was(kept)]

    def _same_told(self, words: Any) -> bool:
        """Look into what was written to."""
        written = self._told if self._were is None else [self._told[i] for i in np.nonzero(words != self._were)[0]]
        for snapshot in written:
            now = list(snapshot.view)
            if not equal(now, snapshot.elements, self._same):
                return False
            snapshot.elements = now  # equal, but other objects: they have to live as long as their addresses count
        return True

    def _as_it_was(self, snapshot: _Snapshot) -> bool:
        return equal(list(snapshot.view), snapshot.elements, self._same)


def _words_of(container: Any) -> list[tuple[Any, str | int]]:
    """The words that tell of changes to a container, as (object, field); none if there are no such words."""
    if isinstance(container, Type):
        return [(container.item, "type")]
    if isinstance(container, Defaults):
        return [(container.function, part) for part in ("__code__", "__defaults__", "__kwdefaults__")]
    if isinstance(container, Cells):
        return [(cell, "contents") for cell in container.cells]
    if isinstance(container, Slots):
        places = slot_places(type(container.item))
        return (
            [(container.item, places[slot]) for slot in container.names] if places.keys() >= {*container.names} else []
        )
    if isinstance(container, ClassDict):
        return [(container.cls, "__mro__"), (_written(vars(container.cls)), "writes")]
    if isinstance(container, _RESIZABLE) and (not container or not isinstance(container, dict)):
        return [(container, next(kind.__name__ for kind in _RESIZABLE if isinstance(container, kind)))]
    written = _written(container)
    return [] if written is None else [(written, "writes")]


def _only_counts(words: list[tuple[Any, str | int]]) -> bool:
    """Whether words tell the number of elements, but not which."""
    return words[0][1] in {kind.__name__ for kind in _RESIZABLE}


def _written(container: Any) -> dict[Any, Any] | None:
    """The dict behind a container, if its counter of writes tells of every change."""
    if isinstance(container, Globals):
        container = container.scope
    if isinstance(container, types.MappingProxyType):
        behind = gc.get_referents(container)
        container = behind[0] if len(behind) == 1 else None
    if not isinstance(container, dict) or isinstance(container, collections.OrderedDict):
        return None  # an OrderedDict changes its order without writing
    return container
