"""Containers of which no word of memory tells: do they still have the very same elements, asked of all in one go?

Unpacking a container into variables counts its elements and fetches them, without a call per container and a list in
between. So the comparison is a function with one such line per container, written for their lengths. Long containers
are compared by their elements' addresses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from .identity import addresses

_LONG, _MANY = 64, 512  # elements of one container, and of all that are unpacked

View = Iterable[Any]
Same = Callable[[Any, Any], bool]


def equal(new: list[Any], old: list[Any], same: Same) -> bool:
    """Whether elements are the same, or others that are worth the same."""
    return len(new) == len(old) and all(a is b or same(a, b) for a, b in zip(new, old, strict=True))


class Loose:
    """Containers and the elements that they had.

    Args:
        containers: each as a view on its elements, and those that it had.
        same: whether two different objects, new and old, are worth the same.
    """

    def __init__(self, containers: Iterable[tuple[View, list[Any]]], same: Same) -> None:
        self._worth = same
        short: list[tuple[View, list[Any]]] = []
        long: list[tuple[View, list[Any]]] = []
        room = _MANY
        for view, elements in containers:
            unpacked = len(elements) <= min(_LONG, room)
            room -= len(elements) if unpacked else 0
            (short if unpacked else long).append((view, elements))
        self._views = [view for view, _ in (*short, *long)]
        self._short, self._long = self._views[: len(short)], self._views[len(short) :]
        self._same = _comparison(tuple(len(elements) for _, elements in short))
        self._keep([elements for _, elements in (*short, *long)])

    def _keep(self, elements: list[list[Any]]) -> None:
        """Take these for what should be there; they live as long as they are compared by identity."""
        short = len(self._short)
        unpacked, long = tuple(chain.from_iterable(elements[:short])), [addresses(kept) for kept in elements[short:]]
        self._were = elements, unpacked, long  # together: another thread may ask as well

    def unchanged(self) -> bool:
        """Whether every container has its elements, or ones that are worth the same."""
        _, unpacked, long = self._were
        try:
            if self._same(self._short, unpacked) and (not long or self._long_ones() == long):
                return True
        except (ValueError, RuntimeError):  # more or fewer elements than variables; changed while iterating
            pass
        return self._worth_the_same()

    def _long_ones(self) -> list[bytes]:
        return [addresses(list(view)) for view in self._long]

    def _worth_the_same(self) -> bool:
        try:
            now = [list(view) for view in self._views]
        except RuntimeError:
            return False
        if not all(equal(new, old, self._worth) for new, old in zip(now, self._were[0], strict=True)):
            return False
        self._keep(now)
        return True


@functools.lru_cache(maxsize=256)
def _comparison(lengths: tuple[int, ...]) -> Callable[[Sequence[View], Sequence[Any]], bool]:
    """A function of views and of elements that tells whether views of these lengths yield just these objects.

    >>> one, other = object(), object()
    >>> same = _comparison((2, 0))
    >>> same([[one, other], []], [one, other]), same([[one, one], []], [one, other])
    (True, False)
    """
    elements = range(sum(lengths))
    names = iter([f"x{k}" for k in elements])
    lines = [
        "def same(views, elements):",
        f" [{', '.join(f'v{k}' for k in range(len(lengths)))}] = views",
        f" [{', '.join(f'e{k}' for k in elements)}] = elements",
        *(f" [{', '.join(next(names) for _ in range(length))}] = v{k}" for k, length in enumerate(lengths)),
        f" return {' and '.join(f'x{k} is e{k}' for k in elements) or 'True'}",
    ]
    scope: dict[str, Any] = {}
    exec("\n".join(lines), scope)
    same: Callable[[Sequence[View], Sequence[Any]], bool] = scope["same"]
    return same
