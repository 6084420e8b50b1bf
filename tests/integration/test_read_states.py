"""More that a model may read besides tensors: whatever changes it, the next call must show it."""

from __future__ import annotations

import copy
import functools
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pcgraph

X = torch.arange(12.0).reshape(3, 4) / 12
Scene = tuple[str, Callable[["Net", Tensor], Tensor], Callable[["Net"], object]]


class Net(nn.Module):
    def __init__(self, body: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(4, 4)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


class Config(dict[str, float]):
    scale = 1.0


class Row(list[float]):
    __slots__ = ("scale",)


class Number(float):
    scale: float


class Old(nn.Module):
    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class New(Old):
    factor = 5.0


def _unused(scale: list[float] = [1.0]) -> float:  # noqa: B006
    return scale[0]


class Thing:
    scale = 1.0

    def __mul__(self, x: Tensor, factors: list[float] = [1.0]) -> Tensor:  # noqa: B006
        return x * factors[0]


def multiplied(x: Tensor, factor: float) -> Tensor:
    return x * factor


def scenes() -> Iterator[Scene]:
    """Name, a body that reads something, and what changes it."""
    yield (
        "attribute put on a parameter",
        lambda net, x: net.a(x) * getattr(net.a.weight, "scale", 1.0),
        lambda net: setattr(net.a.weight, "scale", 2.0),
    )
    config, own = type("Config", (Config,), {})(a=1.0), Config(a=1.0)
    yield "class of a dict", lambda net, x: net.a(x) * config.scale, lambda net: setattr(type(config), "scale", 2.0)
    yield "attribute of a dict", lambda net, x: net.a(x) * own.scale, lambda net: setattr(own, "scale", 2.0)
    row = Row([1.0])
    row.scale = 1.0
    yield "slot of a list", lambda net, x: net.a(x) * row.scale, lambda net: setattr(row, "scale", 2.0)
    number = Number(1.0)
    number.scale = 1.0
    yield "attribute of a number", lambda net, x: net.a(x) * number.scale, lambda net: setattr(number, "scale", 2.0)
    adopted = type("Adopted", (Old,), {})()
    yield "bases", lambda net, x: adopted(net.a(x)), lambda net: setattr(type(adopted), "__bases__", (New,))
    key = Thing()
    table = {key: None}
    yield (
        "key of a dict",
        lambda net, x: net.a(x) * next(k.scale for k in table),
        lambda net: setattr(key, "scale", 2.0),
    )
    thing = type("Thing", (Thing,), {"__mul__": types.FunctionType(
        Thing.__mul__.__code__, globals(), "__mul__", ([1.0],))})()  # fmt: skip
    yield (
        "default of a special method",
        lambda net, x: thing * net.a(x),
        lambda net: type(thing).__mul__.__defaults__[0].__setitem__(0, 2.0),
    )
    unused = types.FunctionType(_unused.__code__, globals(), "unused", ([1.0],))
    yield (
        "default of a function that is looked into, not called",
        lambda net, x: net.a(x) * unused.__defaults__[0][0],  # type: ignore[index]
        lambda net: setattr(unused, "__defaults__", ([2.0],)),
    )
    module = types.ModuleType("pcgraph_test_flags")
    sys.modules[module.__name__] = module
    yield (
        "name that comes to be in a module",
        lambda net, x: net.a(x) * getattr(module, "flag", 1.0),  # type: ignore[arg-type]
        lambda net: setattr(module, "flag", 2.0),
    )
    module.act, name = (lambda x: x * 1.0), "act"  # type: ignore[attr-defined]
    yield (
        "function by name",
        lambda net, x: getattr(module, name)(net.a(x)),
        lambda net: setattr(module, "act", lambda x: x * 2.0),
    )
    part = functools.partial(multiplied, factor=1.0)
    yield (
        "partial",
        lambda net, x: part(net.a(x)),
        lambda net: part.__setstate__((multiplied, (), {"factor": 2.0}, {})),  # type: ignore[attr-defined]
    )
    array = np.arange(6.0).reshape(2, 3)

    def turn(net: Net) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy would rather not have it done
            array.shape = (3, 2)

    yield "shape of an array", lambda net, x: net.a(x) * array.shape[0], turn
    yield (
        "setting",
        lambda net, x: net.a(x) * (2.0 if torch.backends.cudnn.benchmark else 1.0),
        lambda net: setattr(torch.backends.cudnn, "benchmark", True),
    )


@pytest.mark.parametrize("scene", [pytest.param(scene, id=scene[0]) for scene in scenes()])
def test_a_change_is_seen(scene: Scene) -> None:
    _, body, change = scene
    plain = Net(body)
    network: Any = pcgraph.compile(copy.deepcopy(plain))
    benchmark = torch.backends.cudnn.benchmark
    try:
        before = plain(X)
        assert torch.equal(network(X), before) and torch.equal(network(X), before)
        for net in (plain, network.module):
            change(net)
        assert not torch.equal(plain(X), before)
        assert torch.equal(network(X), plain(X))
    finally:
        torch.backends.cudnn.benchmark = benchmark


def test_a_function_that_no_call_runs_is_of_no_account() -> None:
    unused = types.FunctionType(_unused.__code__, globals(), "unused", ([1.0],))
    network: Any = pcgraph.compile(Net(lambda net, x: net.a(x) if x.dim() == 2 else net.a(x) * unused()))
    for step in range(3):
        network(X)
        unused.__defaults__ = ([float(step)],)
    assert network.cache_info()["captures"] == 1
    assert torch.equal(network(X[0]), network.module.a(X[0]) * 2.0)
    unused.__defaults__ = ([7.0],)
    assert torch.equal(network(X[0]), network.module.a(X[0]) * 7.0)


def test_hooks_that_want_more_are_seen_after_others() -> None:
    network: Any = pcgraph.compile(Net(lambda net, x: net.a(x)))
    plain = network.module.a(X)
    assert torch.equal(network(X), plain)
    handle = network.module.a.register_forward_hook(lambda m, args, kwargs, y: y * 2, with_kwargs=True)
    assert torch.equal(network(X), plain * 2)
    handle.remove()
    assert torch.equal(network(X), plain)


REMEMBERED = {"scale": 2.0}


@pytest.mark.parametrize("read", ["closure", "default", "global"])
def test_what_a_cache_remembers_is_read_again_once_it_is_cleared(read: str) -> None:
    """At capture the cache answers and its function does not run; it decides all the same."""
    scale = 2.0

    def helper(scale: float = 2.0) -> float:
        return scale

    reads: dict[str, Callable[[], float]] = {
        "closure": lambda: scale,
        "default": lambda: helper(),
        "global": lambda: REMEMBERED["scale"],
    }
    remembered = functools.lru_cache(reads[read])
    assert remembered() == 2.0
    network: Any = pcgraph.compile(Net(lambda net, x: net.a(x) * remembered()))
    try:
        for factor in (2.0, 5.0):
            scale, helper.__defaults__, REMEMBERED["scale"] = factor, (factor,), factor
            remembered.cache_clear()
            for _ in range(2):
                assert torch.equal(network(X), network.module.a(X) * factor)
    finally:
        REMEMBERED["scale"] = 2.0
