"""Objects in a return value (a key-value cache, a result class) are taken apart, so that each call makes its own."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import register_pytree_node, tree_map

_LIMIT = 10_000  # objects in one return value


class Opened:
    """An object as its class and attributes; a pytree node."""

    def __init__(self, cls: type, attributes: dict[str, Any]) -> None:
        self.cls, self.attributes = cls, attributes

    def close(self) -> Any:
        """An object like the one that was opened."""
        result: Any = object.__new__(self.cls)
        vars(result).update({name: closed(value) for name, value in self.attributes.items()})
        return result


register_pytree_node(
    Opened,
    lambda item: (list(item.attributes.values()), (item.cls, tuple(item.attributes))),
    lambda values, context: Opened(context[0], dict(zip(context[1], values, strict=True))),
)


def opened(value: Any, known: Callable[[Any], bool]) -> Any:
    """`value` with objects of the user's classes opened; the containers around them are new.

    Args:
        value: what the model returned.
        known: tells objects that the model owns: those are the same at every call.
    """
    budget = iter(range(_LIMIT))

    def leaf(item: Any, above: tuple[int, ...]) -> Any:
        if not _is_plain(item) or known(item) or id(item) in above or next(budget, None) is None:
            return item
        inner = {name: walk(part, (*above, id(item))) for name, part in vars(item).items()}
        return Opened(type(item), inner)

    def walk(item: Any, above: tuple[int, ...]) -> Any:
        return tree_map(lambda part: leaf(part, above), item)

    return walk(value, ())


def closed(value: Any) -> Any:
    """The inverse of `opened`, with new objects."""
    return tree_map(
        lambda part: part.close() if isinstance(part, Opened) else part, value, is_leaf=lambda p: isinstance(p, Opened)
    )


def _is_plain(item: Any) -> bool:
    """An instance of an ordinary Python class: all of its state is in its ``__dict__``."""
    cls = type(item)
    if isinstance(item, torch.Tensor | torch.nn.Module | type | types.ModuleType | Callable):
        return False
    ordinary = all(getattr(cls, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__"))
    return ordinary and hasattr(item, "__dict__") and cls.__basicsize__ == _Plain.__basicsize__


class _Plain:
    pass
