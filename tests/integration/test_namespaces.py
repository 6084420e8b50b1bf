"""Numbers in modules and namespaces, read in every way that Python has: the next call sees what they are then."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import math
import sys
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import pcgraph
from tests.integration.test_overlooked import Net, X, assert_same

FACTOR = 1.0
NAME = "numbers_of_ours"


def patched(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * math.pi


def patched_array(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * np.pi


def imported(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * importlib.import_module("numbers_of_ours").FACTOR


def imported_by_variable(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * import_module(NAME).FACTOR


def imported_inside(net: Net, x: Tensor) -> Tensor:
    import numbers_of_ours  # type: ignore[import-not-found]

    factor: float = numbers_of_ours.__dict__["FACTOR"]
    return net.a(x) * factor


def imported_by_builtin(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * __import__("numbers_of_ours").FACTOR


def looked_up(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * sys.modules["numbers_of_ours"].FACTOR


def looked_up_by_variable(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * sys.modules[NAME].FACTOR


def own_module(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * sys.modules[__name__].FACTOR


def static_attribute(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * inspect.getattr_static(sys.modules["numbers_of_ours"], "FACTOR")


def of_the_frame(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * sys._getframe().f_globals["FACTOR"]


def of_the_function(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * of_the_frame.__globals__["FACTOR"]


@pytest.mark.parametrize(
    ("body", "owner"),
    [
        (patched, math),
        (patched_array, np),
        *((body, NAME) for body in (imported, imported_by_variable, imported_inside, imported_by_builtin)),
        *((body, NAME) for body in (looked_up, looked_up_by_variable, static_attribute)),
        *((body, sys.modules[__name__]) for body in (own_module, of_the_frame, of_the_function)),
    ],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_a_number_that_changes(
    body: Callable[[Net, Tensor], Tensor], owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = types.ModuleType(NAME)
    ours.FACTOR = 1.0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, NAME, ours)
    owner = ours if owner == NAME else owner
    model = Net(body)
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    for number in (1.0, 1.0, 3.0, 3.0, 1.0):
        monkeypatch.setattr(owner, "pi" if hasattr(owner, "pi") else "FACTOR", number)
        assert_same(twin, network, X.clone())
    by_unknown_name = body in (looked_up_by_variable, of_the_frame, of_the_function)
    assert bool(network.cache_info()["once"]) == by_unknown_name, network.cache_info()["once"]


def scaled(x: Tensor, by: float = 1.0) -> Tensor:
    return x * by


def by_its_default(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * inspect.signature(scaled).parameters["by"].default


def by_any_default(net: Net, x: Tensor) -> Tensor:
    return net.a(x) * {f.__name__: f.__defaults__ for f in (scaled,)}["scaled"][0]  # type: ignore[index]


@pytest.mark.parametrize("body", [by_its_default, by_any_default], ids=lambda body: body.__name__)
def test_a_default_that_is_read_and_never_used(body: Callable[[Net, Tensor], Tensor], monkeypatch: Any) -> None:
    model = Net(body)
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    for number in (1.0, 1.0, 3.0, 3.0, 1.0):
        monkeypatch.setattr(scaled, "__defaults__", (number,))
        assert_same(twin, network, X.clone())
    assert not network.cache_info()["once"]


def test_a_module_that_the_first_call_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lazily(net: Net, x: Tensor) -> Tensor:
        with contextlib.suppress(TypeError):  # no package to be relative to: import_module's error, as it is
            import_module(".nothing")
        return net.a(x) * import_module("imported_late").FACTOR

    (tmp_path / "imported_late.py").write_text("FACTOR = 1.0")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = Net(lazily)
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    network(X.clone()).sum().backward()  # before anybody else has imported it
    for number in (1.0, 3.0, 3.0, 1.0):
        monkeypatch.setattr(sys.modules["imported_late"], "FACTOR", number)
        assert_same(twin, network, X.clone())
    del sys.modules["imported_late"]


def test_names_that_are_only_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As einops looks for the framework of a tensor."""

    def doubled_if_loaded(net: Net, x: Tensor) -> Tensor:
        return net.a(x) * (2.0 if NAME in sys.modules else 1.0)

    monkeypatch.delitem(sys.modules, NAME, raising=False)
    model = Net(doubled_if_loaded)
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    for loaded in (False, False, True, True, False):
        monkeypatch.delitem(sys.modules, NAME, raising=False)
        if loaded:
            monkeypatch.setitem(sys.modules, NAME, types.ModuleType(NAME))
        assert_same(twin, network, X.clone())
    info = network.cache_info()
    assert not info["once"] and info["hits"] >= 2
