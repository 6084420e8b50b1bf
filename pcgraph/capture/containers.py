"""Containers over things that are none (cells, slots, globals, arrays): each yields its values."""

from __future__ import annotations

import contextvars
import inspect
import types
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch


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
    """The slots of an object, as a container."""

    def __init__(self, item: Any, slots: list[str]) -> None:
        self._item, self._slots = item, [s for s in slots if s != "__weakref__"]

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self._item, slot, None) for slot in self._slots)


class Globals:
    """Some names of a namespace, as a container."""

    def __init__(self, scope: dict[str, Any], names: tuple[str, ...]) -> None:
        self.scope, self._names = scope, names

    def __iter__(self) -> Iterator[Any]:
        missing = self
        return (self.scope.get(name, missing) for name in self._names)


class Forward:
    """The forward method of a module class, its own or inherited, torch's own classes included."""

    def __init__(self, cls: type[torch.nn.Module]) -> None:
        self.cls = cls

    def __iter__(self) -> Iterator[Any]:
        found = self.cls.forward
        yield found if isinstance(found, types.FunctionType) else inspect.getattr_static(self.cls, "forward")


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


class Counted:
    """The number of elements of a container, and the elements."""

    def __init__(self, container: Any, view: Iterable[Any]) -> None:
        self._container, self._view = container, view

    def __iter__(self) -> Iterator[Any]:
        yield len(self._container)
        yield from self._view


class Items:
    """Keys and values of a mapping, as a container."""

    def __init__(self, mapping: Any) -> None:
        self._mapping = mapping

    def __iter__(self) -> Iterator[Any]:
        return chain(self._mapping, self._mapping.values())


class Variable:
    """The value of a context variable, as a container."""

    def __init__(self, variable: contextvars.ContextVar[Any]) -> None:
        self._variable = variable

    def __iter__(self) -> Iterator[Any]:
        yield self._variable.get(None)


class ArrayBytes:
    """What a NumPy array is made of, as a container."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __iter__(self) -> Iterator[Any]:
        array = self._array
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
