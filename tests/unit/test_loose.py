"""Elements compared one by one: every change is seen, whatever the lengths, and equal values are none."""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from pcgraph.capture import loose
from pcgraph.capture.loose import Loose


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and type(a) in (int, str) and bool(a == b)


class Fading:
    """Fails as an iterator does whose container changes meanwhile."""

    fades = False

    def __iter__(self) -> Any:
        if self.fades:
            raise RuntimeError
        return iter((1, 2))


CHANGES: dict[str, Callable[[list[Any]], object]] = {
    "another": lambda x: x.__setitem__(0, object()),
    "equal to anything": lambda x: x.__setitem__(0, mock.ANY),
    "one more": lambda x: x.append(x[0]),
    "one less": lambda x: x.pop(),
    "none left": lambda x: x.clear(),
    "turned round": lambda x: x.reverse(),
    "true for one": lambda x: x.__setitem__(x.index(1), True),
    "a float for one": lambda x: x.__setitem__(x.index(1), 1.0),
}


@pytest.mark.parametrize("length", [2, 64, 65, 600])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("asked", [0, 2])
def test_changes_are_seen(length: int, change: str, asked: int) -> None:
    changed = [object() for _ in range(length - 1)] + [1]
    others: list[list[Any]] = [[], ["a"], list(range(40)), [object()] * 3]
    kept = Loose([(x, list(x)) for x in (*others, changed, ["b"])], same)
    for _ in range(asked):
        assert kept.unchanged()
    CHANGES[change](changed)
    assert not kept.unchanged()
    assert not kept.unchanged()


@pytest.mark.parametrize("length", [3, 90])
def test_an_element_that_moves_to_the_next_container_is_seen(length: int) -> None:
    one, other = [object() for _ in range(length)], [object() for _ in range(length)]
    kept = Loose([(one, list(one)), (other, list(other))], same)
    other.insert(0, one.pop())
    assert not kept.unchanged()
    one.append(other.pop(0))
    assert kept.unchanged()


@pytest.mark.parametrize("length", [3, 90])
def test_equal_values_are_accepted_and_kept(length: int) -> None:
    items = [str(k) for k in range(length)]
    kept = Loose([(items, list(items))], same)
    for _ in range(30):
        items[1] = "".join(["1"])
        assert kept.unchanged()
    items[1] = "".join(["2"])
    assert not kept.unchanged()


def test_containers_of_every_kind() -> None:
    numbers, queue, fading = {1, 2, 3}, collections.deque([1]), Fading()
    kept = Loose([(numbers, list(numbers)), (queue, [1]), (fading, [1, 2])], same)
    assert kept.unchanged()
    queue.rotate()
    assert kept.unchanged()
    queue.append(2)
    assert not kept.unchanged()
    queue.pop()
    numbers.add(4)
    assert not kept.unchanged()
    numbers.discard(4)
    assert kept.unchanged()
    fading.fades = True
    assert not kept.unchanged()


def test_as_many_as_there_are() -> None:
    items = [[object()] for _ in range(2000)]
    kept = Loose([(x, list(x)) for x in items], same)
    assert kept.unchanged() and len(kept._short) == loose._MANY
    for changed in (items[3], items[-1]):
        before = changed[0]
        changed[0] = object()
        assert not kept.unchanged()
        changed[0] = before
        assert kept.unchanged()
    assert Loose([], same).unchanged()
