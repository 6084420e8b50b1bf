"""State in unusual places: what a change there does to plain autograd, the next call of the network must show."""

from __future__ import annotations

import collections
import contextvars
import functools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph.errors import CaptureError
from tests.integration.test_overlooked import Net, X, assert_same

Scene = tuple[Net, Callable[[], Any]]


def metadata_alone() -> Scene:
    net = Net(lambda net, x: net.a(x) * len(net.t))
    net.t = torch.zeros(3)
    return net, lambda: setattr(net.t, "data", torch.zeros(5))


def requires_grad_alone() -> Scene:
    net = Net(lambda net, x: net.a(x) * (2 if net.t.requires_grad else 1))
    net.t = torch.zeros(3)
    return net, lambda: net.t.requires_grad_()


def equal_code_in_two_places() -> Scene:
    source = "def scale(x):\n    return x * FACTOR\n"
    one, two = {"FACTOR": 1.0}, {"FACTOR": 1.0}
    exec(compile(source, "one.py", "exec"), one)
    exec(compile(source, "two.py", "exec"), two)
    net = Net(lambda net, x: two["scale"](one["scale"](net.a(x))))  # type: ignore[operator]
    return net, lambda: two.update(FACTOR=5.0)


def one_code_in_two_namespaces() -> Scene:
    def scale(x: Tensor) -> Tensor:
        return x * FACTOR  # type: ignore[name-defined]  # noqa: F821

    scopes = [{"FACTOR": 1.0}, {"FACTOR": 1.0}]
    one, two = (types.FunctionType(scale.__code__, scope) for scope in scopes)
    return Net(lambda net, x: two(one(net.a(x)))), lambda: scopes[1].update(FACTOR=5.0)


class Thing:
    scale = 3.0


def weak_reference() -> Scene:
    box = [Thing()]
    reference = weakref.ref(box[0])
    return Net(lambda net, x: net.a(x) * (getattr(reference(), "scale", 1.0) + len(box) * 0)), box.clear


def weak_reference_of_somebody_elses() -> Scene:
    box = [Thing()]
    reference = weakref.ref(box[0])
    return Net(lambda net, x: net.a(x) * getattr(reference(), "scale", 1.0)), box.clear


def context_default() -> Scene:
    variable = contextvars.ContextVar("variable", default={"scale": 1.0})  # noqa: B039
    return Net(lambda net, x: net.a(x) * variable.get()["scale"]), lambda: variable.get().update(scale=2.0)


def context_set_to_none() -> Scene:
    variable = contextvars.ContextVar[Any]("variable", default=2.0)

    def scale(net: Net, x: Tensor) -> Tensor:
        found = variable.get()
        return net.a(x) * (found if found is not None else 5.0)

    return Net(scale), lambda: variable.set(None)


def partial_attribute() -> Scene:
    call = functools.partial(torch.mul, other=1.0)
    call.scale = 1.0  # type: ignore[attr-defined]
    return Net(lambda net, x: net.a(x) * call.scale), lambda: setattr(call, "scale", 2.0)  # type: ignore[attr-defined]


def structured_scalar() -> Scene:
    record = np.array((1.0, 2), dtype=[("k", float), ("n", int)])[()]
    return Net(lambda net, x: net.a(x) * float(record["k"])), lambda: record.__setitem__("k", 3.0)


class Informed(np.ndarray[Any, Any]):
    scale = 1.0


def array_attribute() -> Scene:
    array = np.zeros(2).view(Informed)
    return Net(lambda net, x: net.a(x) * array.scale), lambda: setattr(array, "scale", 2.0)


class Objects(np.ndarray[Any, Any]):
    pass


def array_of_objects() -> Scene:
    array = np.array([1.0, None], dtype=object).view(Objects)
    return Net(lambda net, x: net.a(x) * array[0]), lambda: array.__setitem__(0, 2.0)


class Bytes(bytearray):
    pass


def memory_of_its_own() -> Scene:
    held = Bytes(b"\x01\x02")
    return Net(lambda net, x: net.a(x) * held[0]), lambda: held.__setitem__(0, 7)


class Setting(property):
    default = 1.0


class Configured:
    setting = Setting(lambda self: type(self).__dict__["setting"].default)


def property_with_state() -> Scene:
    Configured.__dict__["setting"].default = 1.0
    thing = Configured()
    return Net(lambda net, x: net.a(x) * thing.setting), lambda: setattr(Configured.__dict__["setting"], "default", 2.0)


class Private:
    __factors__: ClassVar[list[float]] = [1.0]


def attribute_between_underscores() -> Scene:
    Private.__factors__[0] = 1.0
    thing = Private()
    return Net(lambda net, x: net.a(x) * thing.__factors__[0]), lambda: thing.__factors__.__setitem__(0, 2.0)


class Shy(dict[str, float]):
    def __iter__(self) -> Iterator[str]:
        return iter(())

    def values(self) -> Any:
        return ()

    def items(self) -> Any:
        return ()


def mapping_that_hides() -> Scene:
    held = Shy(scale=1.0)
    return Net(lambda net, x: net.a(x) * held["scale"]), lambda: held.update(scale=2.0)


def default_factory() -> Scene:
    held = collections.defaultdict[str, float](lambda: 1.0)

    def change() -> None:
        held.default_factory = lambda: 2.0

    return Net(lambda net, x: net.a(x) * (held.default_factory or float)()), change


def attribute_of_torchs_class() -> Scene:
    return Net(lambda net, x: net.a(x) * getattr(net.a, "scale_of_a_test", 1.0)), lambda: setattr(
        nn.Linear, "scale_of_a_test", 2.0
    )


def patched_torch_class() -> Scene:
    return Net(lambda net, x: net.a(x) * len(net.a.extra_repr())), lambda: setattr(
        nn.Linear, "extra_repr", lambda self: "four"
    )


SCENES: list[Callable[[], Scene]] = [
    metadata_alone, requires_grad_alone, equal_code_in_two_places, one_code_in_two_namespaces, weak_reference,
    weak_reference_of_somebody_elses, context_default, context_set_to_none, partial_attribute,
    structured_scalar, array_attribute, array_of_objects, memory_of_its_own, property_with_state,
    attribute_between_underscores, mapping_that_hides, default_factory, attribute_of_torchs_class, patched_torch_class,
]  # fmt: skip


@pytest.fixture(autouse=True)
def torchs_classes() -> Iterator[None]:
    before = nn.Linear.extra_repr
    yield
    nn.Linear.extra_repr = before  # type: ignore[method-assign]
    vars(nn.Linear).get("scale_of_a_test") and delattr(nn.Linear, "scale_of_a_test")


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_change_shows(scene: Callable[[], Scene]) -> None:
    net, change = scene()
    network = pcgraph.compile(net)
    assert_same(net, network, X)
    before = net(X).sum().item()
    assert_same(net, network, X)
    change()
    assert net(X).sum().item() != before
    assert_same(net, network, X)
    assert_same(net, network, X)


def test_a_set_of_weak_references_to_modules() -> None:
    things = weakref.WeakSet[nn.Module]()
    net = Net(lambda net, x: functools.reduce(lambda h, thing: thing(h), list(things), net.a(x)))
    net.extra = nn.Sequential(nn.Tanh())
    things.add(net.extra[0])
    network = pcgraph.compile(net)
    for _ in range(2):
        assert_same(net, network, X)
    assert network.cache_info()["captures"] == 1
    del net.extra
    network(X)  # lets go of what it compared
    assert not things
    assert_same(net, network, X)


def test_attributes_of_another_thread() -> None:
    local = threading.local()
    local.scale = 1.0
    net = Net(lambda net, x: net.a(x) * local.scale)
    network = pcgraph.compile(net)
    assert_same(net, network, X)
    seen: list[float] = []

    def elsewhere() -> None:
        local.scale = 2.0
        seen.append(network(X).sum().item())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [pytest.approx(2 * net(X).sum().item())]
    assert_same(net, network, X)


def applied(net: Net, x: Tensor) -> Tensor:
    return net.a(x.clone().apply_(lambda value: value * 2))


def mapped(net: Net, x: Tensor) -> Tensor:
    return net.a(x.clone().map_(x, lambda a, b: a + b))


def applied_builtin(net: Net, x: Tensor) -> Tensor:
    return net.a(x.clone().apply_(functools.partial(max, 0.5)))


def through_numpy(net: Net, x: Tensor) -> Tensor:
    h = x.clone()
    h.numpy()[0] = 5
    return net.a(h)


def through_an_array_of_a_value(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    np.asarray(h.detach())[0] *= 2
    return net.b(h)


def through_a_storage(net: Net, x: Tensor) -> Tensor:
    h = x.clone()
    h.untyped_storage()[0] = 1
    return net.a(h)


def a_buffer_through_numpy(net: Net, x: Tensor) -> Tensor:
    h = net.a(x) * net.count
    net.count.numpy()[...] += 1
    return h


def dlpack(net: Net, x: Tensor) -> Tensor:
    h = x.clone()
    torch.from_dlpack(h)[0] = 5
    return net.a(h)


def array_under_a_buffer(net: Net, x: Tensor) -> Tensor:
    h = net.a(x) * net.t
    net.under[:] += 1  # type: ignore[operator, index]
    return h


@pytest.mark.parametrize(
    "body",
    [
        applied, mapped, applied_builtin, through_numpy, through_an_array_of_a_value, through_a_storage,
        a_buffer_through_numpy, dlpack, array_under_a_buffer,
    ],
    ids=lambda body: body.__name__,
)  # fmt: skip
def test_writes_that_torch_does_not_see_are_refused(body: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(body)
    net.under = np.ones(4, np.float32)  # type: ignore[assignment]
    net.t = torch.from_numpy(net.under)
    with pytest.raises(CaptureError, match=r"NumPy|behind torch's back|DLPack|in place"):
        pcgraph.compile(net)(X)


def numpy_read(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    h.detach_().numpy() if not h.requires_grad else None
    weights = h.detach().numpy().copy()
    weights[0] = 1
    h = h * torch.from_numpy(weights)
    h[0] = h[0] * 2  # torch may write where NumPy has read
    return h + float(np.asarray(x.detach()).mean())


def test_numpy_may_read() -> None:
    net = Net(numpy_read)
    network = pcgraph.compile(net)
    for k in range(3):
        assert_same(net, network, X + k)


def test_where_an_input_comes_from() -> None:
    def named(net: Net, x: Tensor) -> Tensor:
        return net.a(x) * (2.0 if x.grad_fn is not None and "Mul" in x.grad_fn.name() else 1.0)

    net = Net(named)
    network = pcgraph.compile(net)
    for x in (X, X.clone().requires_grad_()):
        assert torch.equal(net(x), network(x))
    assert network.cache_info()["captures"] == 2 and not network.cache_info()["once"]  # leaves have no function
    leaf = X.clone().requires_grad_()
    for x in (leaf * 2, leaf + 1, leaf * 3):
        assert torch.equal(net(x), network(x))


def test_an_inference_tensor() -> None:
    net = Net(lambda net, x: net.a(x) * (2.0 if x.is_inference() else 1.0))
    network = pcgraph.compile(net)
    with torch.inference_mode():
        inference = X.clone()
    for x in (X, inference.clone(), X):
        assert torch.equal(net(x), network(x))


class Marked(str):
    __slots__ = ("scale",)


def test_an_argument_with_slots() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor, mark: Marked) -> Tensor:
            return self.a(x) * mark.scale  # type: ignore[no-any-return]

    net, mark = Model(), Marked("mark")
    network = pcgraph.compile(net)
    for mark.scale in (1.0, 2.0, 1.0):
        assert torch.equal(net(X, mark), network(X, mark))


def test_the_dead_are_let_go() -> None:
    """Guards keep alive what they compare, but not what the model reads through a weak reference only."""
    box = [Thing()]
    reference = weakref.ref(box[0])
    network = pcgraph.compile(Net(lambda net, x: net.a(x) * getattr(reference(), "scale", 1.0)))
    network(X)
    held = sys.getrefcount(box[0])
    box.clear()
    assert held == 2 and reference() is None
