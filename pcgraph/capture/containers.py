"""Containers over things that are none (cells, slots, globals, arrays): each yields its values."""

from __future__ import annotations

import collections
import contextvars
import threading
import types
from collections.abc import Iterator
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from .objects import plain_elements


class Cells:
    """The contents of a function's closure cells, as a container."""

    def __init__(self, cells: tuple[types.CellType, ...]) -> None:
        self.cells = cells

    def __iter__(self) -> Iterator[Any]:
        for cell in self.cells:
            try:
                yield cell.cell_contents
            except ValueError:
                yield None  # empty


class Slots:
    """The slots of an object, as a container; one that is empty has None."""

    def __init__(self, item: Any, slots: list[str]) -> None:
        self.item, self.names = item, [s for s in slots if s != "__weakref__"]
        self._all = attrgetter(*self.names) if len(self.names) > 1 else None  # one call for all of them

    def __iter__(self) -> Iterator[Any]:
        if self._all is not None:
            try:
                return iter(self._all(self.item))
            except AttributeError:
                pass
        return iter([getattr(self.item, name, None) for name in self.names])


class Globals:
    """Some names of a namespace, as a container."""

    def __init__(self, scope: dict[str, Any], names: tuple[str, ...]) -> None:
        self.scope, self._names = scope, names

    def __iter__(self) -> Iterator[Any]:
        missing = self
        return (self.scope.get(name, missing) for name in self._names)


class Defaults:
    """What of a function can be exchanged: its defaults and its code."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        return iter((self.function.__defaults__, self.function.__kwdefaults__, self.function.__code__))


class Type:
    """An object's class, as a container; somebody may give it another."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __iter__(self) -> Iterator[Any]:
        yield type(self.item)


class Items:
    """Keys and values of a mapping, as a container."""

    def __init__(self, mapping: Any) -> None:
        self._mapping = mapping

    def __iter__(self) -> Iterator[Any]:
        mapping = self._mapping
        for kind in (collections.OrderedDict, dict):  # whatever a class of its own says of them
            if isinstance(mapping, kind):
                return chain(kind.__iter__(mapping), kind.values(mapping))
        items = list(mapping.items())
        return iter([*(key for key, _ in items), *(value for _, value in items)])


class Elements:
    """The elements of a list or the like of a class of its own."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __iter__(self) -> Iterator[Any]:
        return iter(plain_elements(self._container))


class Variable:
    """Whether a context variable has a value, and the value, as a container."""

    def __init__(self, variable: contextvars.ContextVar[Any]) -> None:
        self._variable = variable

    def __iter__(self) -> Iterator[Any]:
        try:
            value = self._variable.get()
        except LookupError:
            return iter([False])
        return iter([True, value])


class Local:
    """The attributes that a `threading.local` has in the thread that asks, as a container."""

    def __init__(self, item: threading.local) -> None:
        self._item = item

    def __iter__(self) -> Iterator[Any]:
        attributes = vars(self._item)
        return iter([len(attributes), *attributes, *attributes.values()])


class ArrayBytes:
    """What a NumPy array is made of, as a container."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __iter__(self) -> Iterator[Any]:
        array = self.array
        yield from (array.tobytes(), str(array.dtype), *array.shape)


class ClassDict:
    """The attributes of a class and the classes that it inherits from, as a container."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def __iter__(self) -> Iterator[Any]:
        return iter([*vars(self.cls), *vars(self.cls).values(), self.cls.__mro__])


_FOR_STATE_DICTS = frozenset({
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
    "_non_persistent_buffers_set",
})  # fmt: skip
_ABOUT_HOOKS = {  # what is noted about hooks, and where the hooks are
    "_forward_hooks_with_kwargs": "_forward_hooks",
    "_forward_hooks_always_called": "_forward_hooks",
    "_forward_pre_hooks_with_kwargs": "_forward_pre_hooks",
}


def without_tables(attributes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The items of an object's dict, less the tables of a module that no call reads."""
    for name, value in attributes.items():
        if name not in _FOR_STATE_DICTS and (name not in _ABOUT_HOOKS or attributes.get(_ABOUT_HOOKS[name], value)):
            yield name, value
