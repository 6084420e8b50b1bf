"""Tensors that a call reaches around its tensor arguments: by a closure, a bound method, an attribute."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import torch

from .objects import BOUND, behind, is_atom, is_users, slots_of

_LIMIT = 20_000  # objects that are searched


class TooMany(Exception):
    """The search did not come to its end."""


def reached(values: Any) -> Iterator[torch.Tensor]:
    """Every tensor behind the functions, modules and other objects among `values`, not those among `values` themselves.

    Raises:
        TooMany: there are more objects than are searched.

    >>> x = torch.ones(1)
    >>> [t is x for t in reached((lambda y, z=x: y + z, x))]
    [True]
    >>> list(reached((x, [x], 3)))
    []
    """
    stack = [value for value in _opened(values) if not isinstance(value, torch.Tensor)]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, BOUND):
            item = behind(item)
        if is_atom(item) or id(item) in seen:
            continue
        seen.add(id(item))
        if len(seen) > _LIMIT:
            raise TooMany
        if isinstance(item, torch.Tensor):
            yield item
        else:
            stack.extend(_behind(item))


def methods(cls: type) -> Iterator[Any]:
    """What is defined in a class of the user's and in those that it builds on."""
    for part in cls.__mro__:
        if is_users(part.__module__):
            yield from list(vars(part).values())


def _opened(value: Any) -> Iterator[Any]:
    """What a call is handed: containers are opened, as autograd's functions do not, but torch's calls do."""
    if isinstance(value, tuple | list):
        for item in value:
            yield from _opened(item)
    elif isinstance(value, dict):
        yield from _opened(list(value.values()))
    else:
        yield value


def _behind(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from list(item.values())
    elif isinstance(item, list | tuple | set | frozenset):
        yield from list(item)
    elif isinstance(item, types.FunctionType):
        yield from (item.__defaults__, item.__kwdefaults__)
        for cell in item.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # nothing is in it yet
                continue
    elif isinstance(item, types.MethodType):
        yield from (item.__self__, item.__func__)
    elif isinstance(item, functools.partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, type | types.ModuleType):
        return
    else:
        yield getattr(item, "__dict__", None)
        for slot in slots_of(type(item)):
            yield getattr(item, slot, None)
