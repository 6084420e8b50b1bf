"""Snapshots: every change of every kind of container is seen, and equal values in other objects are none."""

from __future__ import annotations

import abc
import collections
import contextvars
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import nn

from pcgraph.capture import words
from pcgraph.capture.containers import Cells, ClassDict, Defaults, Globals, Local, Slots, Type, Variable
from pcgraph.capture.objects import slots_of
from pcgraph.capture.snapshots import Snapshots


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, int | str) and bool(a == b)


class Slotted:
    __slots__ = ("x",)


class SlottedMore(Slotted):
    __slots__ = ("__private", "y")

    def __init__(self) -> None:
        self.x, self.y, self.__private = 1, "y", 3

    def change(self) -> None:
        self.__private = 4


class Masked(SlottedMore):
    y = 5  # hides the slot


class Answering(Slotted):
    answer = 1

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, name) if name != "x" else Answering.answer


class Final(Slotted):
    made: ClassVar[list[Any]] = []

    def __del__(self) -> None:
        self.made.append(None)


class Abstract(abc.ABC):
    __slots__ = ("x",)

    @abc.abstractmethod
    def f(self) -> None: ...


class Hiding(list[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(())


class Closed(dict[str, int]):
    def __iter__(self) -> Iterator[str]:
        return iter(())

    def values(self) -> Any:
        return []


class ClosedOrder(collections.OrderedDict[str, int]):
    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __getitem__(self, key: str) -> int:
        return 0

    def values(self) -> Any:
        return []


class Net(nn.Module):
    limit = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Other(Net):
    pass


class Turned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -x


def closure() -> tuple[Any, Callable[[int], None]]:
    kept = 1

    def read() -> int:
        return kept

    def write(value: int) -> None:
        nonlocal kept
        kept = value

    return read, write


def cases() -> dict[str, tuple[Any, Callable[[], Any]]]:
    """A container, and something that changes it."""
    named, empty, ordered = {"a": 1, "b": 2}, dict[str, int](), collections.OrderedDict(a=1, b=1)
    items, numbers, queue = [1, 2], {1, 2}, collections.deque([1])
    thing, slotted, scope = types.SimpleNamespace(a=1), Slotted(), {"f": 1, "other": 0}
    slotted.x = 1
    emptied = Slotted()
    emptied.x = 1
    read, write = closure()

    def function(x: int = 1) -> int:
        return x

    def edited(x: int = 1) -> int:
        return x

    def keyworded(*, x: int = 1) -> int:
        return x

    less, changed = types.SimpleNamespace(a=1), Net()
    cls = type("Own", (Net,), {"forward": Net.forward})
    adopted = type("Adopted", (Net,), {})
    other = type("Other", (Net,), {"size": 1})
    variable = contextvars.ContextVar("variable", default=1)
    unset, local = contextvars.ContextVar[None]("unset"), threading.local()
    local.a = 1
    frozen = types.MappingProxyType(behind := {"a": 1})
    return {
        "value": (named, lambda: named.update(a=5)),
        "key": (renamed := {"a": 1}, lambda: renamed.update(b=renamed.pop("a"))),
        "attribute": (vars(thing), lambda: setattr(thing, "a", 2)),
        "empty": (empty, lambda: empty.update(a=1)),
        "order": (ordered, lambda: ordered.move_to_end("a")),
        "list": (items, lambda: items.append(1)),
        "set": (numbers, lambda: numbers.add(3)),
        "deque": (queue, lambda: queue.append(3)),
        "slot": (Slots(slotted, ["x"]), lambda: setattr(slotted, "x", 2)),
        "slot emptied": (Slots(emptied, ["x"]), lambda: delattr(emptied, "x")),
        "slot filled": (Slots(filled := Slotted(), ["x"]), lambda: setattr(filled, "x", 2)),
        "private slot": (Slots(more := SlottedMore(), slots_of(SlottedMore)), more.change),
        "inherited slot": (Slots(heir := SlottedMore(), slots_of(SlottedMore)), lambda: setattr(heir, "x", 2)),
        "answer": (Slots(Answering(), ["x"]), lambda: setattr(Answering, "answer", Answering.answer + 1)),
        "global": (Globals(scope, ("f",)), lambda: scope.update(f=2)),
        "deleted global": (Globals(gone := dict(scope), ("f",)), lambda: gone.pop("f")),
        "closure": (Cells(read.__closure__), lambda: write(2)),
        "default": (Defaults(function), lambda: setattr(function, "__defaults__", (2,))),
        "forward": (ClassDict(cls), lambda: setattr(cls, "forward", lambda self, x: -x)),
        "other bases": (ClassDict(adopted), lambda: setattr(adopted, "__bases__", (Turned,))),
        "class": (ClassDict(other), lambda: setattr(other, "size", 2)),
        "attribute deleted": (vars(less), lambda: delattr(less, "a")),
        "another class": (Type(changed), lambda: setattr(changed, "__class__", Other)),
        "code": (Defaults(edited), lambda: setattr(edited, "__code__", (lambda x=1: -x).__code__)),
        "keyword default": (Defaults(keyworded), lambda: setattr(keyworded, "__kwdefaults__", {"x": 2})),
        "hooks": (hooks := collections.OrderedDict[int, int](), lambda: hooks.update({1: 1})),
        "empty list": (none := list[int](), lambda: none.append(1)),
        "empty set": (nothing := set[int](), lambda: nothing.add(1)),
        "empty deque": (line := collections.deque[int](), lambda: line.append(1)),
        "context": (Variable(variable), lambda: variable.set(2)),
        "variable set to None": (Variable(unset), lambda: unset.set(None)),
        "attribute of this thread": (Local(local), lambda: setattr(local, "a", 2)),
        "hidden by its class": (hiding := Hiding([1]), lambda: hiding.__setitem__(0, 2)),
        "hidden key": (closed := Closed(a=1), lambda: closed.update(a=2)),
        "hidden in order": (hidden := ClosedOrder(a=1), lambda: hidden.update(a=2)),
        "hidden order": (turned := ClosedOrder(a=1, b=1), lambda: turned.move_to_end("a")),
        "ordered value": (valued := collections.OrderedDict(a=1, b=1), lambda: valued.update(a=2)),
        "value of a defaultdict": (filled_in := collections.defaultdict(int, a=1), lambda: filled_in.update(a=2)),
        "element": (held := [1, 2], lambda: held.__setitem__(1, 3)),
        "element of a set": (members := {"a"}, lambda: (members.clear(), members.add("b"))),
        "equal to anything": (anything := [object()], lambda: anything.__setitem__(0, mock.ANY)),
        "true for one": (ones := [1], lambda: ones.__setitem__(0, True)),
        "proxy": (frozen, lambda: behind.update(a=2)),
        "ordered proxy": (types.MappingProxyType(under := collections.OrderedDict(a=1)), lambda: under.update(a=2)),
    }


@pytest.mark.parametrize("asked", [0, 1, 3], ids="asked {} times before".format)
@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
@pytest.mark.parametrize("name", list(cases()))
def test_a_change_is_seen(name: str, counted: bool, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not counted:
        monkeypatch.setattr(words, "PLACES", {})
    container, change = cases()[name]
    kept = Snapshots(same)
    kept.add([1, 2], "another")
    kept.add(container, name)
    kept.add({"x": 1}, "a third")
    for _ in range(asked):
        assert kept.unchanged()
    assert kept.changes() == []
    change()
    assert not kept.unchanged()
    assert not kept.unchanged()
    assert kept.changes() == [name]


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
def test_equal_values_and_what_is_not_read_are_no_change(counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not counted:
        monkeypatch.setattr(words, "PLACES", {})
    thousand = 1000
    named, items, scope = {"a": thousand}, [thousand], {"read": 1}
    kept = Snapshots(same)
    kept.add(named, "dict")
    kept.add(items, "list")
    kept.add(Globals(scope, ("read",)), "globals")
    for step in range(3):
        named["a"], items[0], scope["not read"] = int("1000"), int("1000"), step
        assert kept.unchanged()
    named["b"] = named.pop("a")
    assert not kept.unchanged()


def test_what_is_left_out_is_of_no_account() -> None:
    kept, items, table = Snapshots(same), [1], {"a": 1}
    kept.add(items, "list")
    kept.add(table, "dict")
    assert kept.unchanged()
    kept.leave_out([items])
    items.append(2)
    assert kept.unchanged() and kept.changes() == []
    table["a"] = 2
    assert not kept.unchanged() and kept.changes() == ["dict"]


def test_every_word_is_found_here() -> None:
    fields = {"type", "contents", "writes", "dict", "list", "set", "deque"}
    assert set(words.PLACES) == fields | {"__mro__", "__code__", "__defaults__", "__kwdefaults__"}


def test_slots_are_found_and_nothing_else() -> None:
    places = words.slot_places(SlottedMore)
    assert places.keys() == {"x", "y", "_SlottedMore__private"} and len(set(places.values())) == 3
    assert words.slot_places(Masked).keys() == {"x", "_SlottedMore__private"}
    assert not words.slot_places(Answering) and not words.slot_places(Final) and not Final.made
    assert not words.slot_places(functools.partial)  # made in C
    assert not words.slot_places(Abstract)


def test_every_way_to_write_an_attribute_is_counted() -> None:
    """The interpreter has faster ways once a line ran often."""
    thing = Net()
    kept = words.Words()
    assert kept.add(vars(thing), "writes")
    seen = set()
    for step in range(300):
        thing.size = object()
        seen.add(int(kept.read()[0]))
        vars(thing)["other"] = step + 1000
        seen.add(int(kept.read()[0]))
    del thing.size
    seen.add(int(kept.read()[0]))
    assert len(seen) == 601


def test_an_address_is_not_trusted_after_its_object_is_gone() -> None:
    """An equal value takes the place of the first; then others come and go, perhaps at its address."""
    read, write = closure()
    for _ in range(30):
        kept = Snapshots(lambda a, b: a == b)
        write(float("10.5"))
        kept.add(Cells(read.__closure__), "closure")
        assert kept.unchanged()
        write(float("10.5"))
        assert kept.unchanged()
        write(float("7.25"))
        write(float("3.25"))
        assert not kept.unchanged()
