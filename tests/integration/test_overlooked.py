"""What a guard easily overlooks: each changes the model's result, and the next call must show it."""

from __future__ import annotations

import collections
import copy
import itertools
import os
import random
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

import pcgraph
from pcgraph.errors import CaptureError

X = torch.arange(12.0).reshape(3, 4) / 12


class Net(nn.Module):
    def __init__(self, body: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body = body
        self.register_buffer("count", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def assert_same(plain: nn.Module, network: nn.Module, x: Tensor) -> None:
    """One step of both, to the bit."""
    for candidate in (plain, network):
        candidate.zero_grad()
        torch.manual_seed(1)
        candidate(x).square().sum().backward()
    for a, b in zip(plain.parameters(), network.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
    for a, b in zip(plain.buffers(), network.buffers(), strict=True):
        assert torch.equal(a, b)


def view_at_an_index(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    h[x[:, 0].argmax()].mul_(3)
    return h


def narrowed(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    h.narrow(0, x[:, 0].argmax(), 1).mul_(3)
    return h


def counted_through_a_view(net: Net, x: Tensor) -> Tensor:
    net.count.view(-1).add_(1)
    return net.a(x) * (2 if net.count > 2 else 1)


def cut_in_place(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    h.detach_()
    return net.b(h)


@pytest.mark.parametrize("body", [view_at_an_index, narrowed, counted_through_a_view, cut_in_place])
def test_inside_of_tensors(body: Any) -> None:
    plain = Net(body)
    network = pcgraph.compile(copy.deepcopy(plain))
    for step in range(5):
        assert_same(plain, network, X.roll(step, 0))


def test_a_question_where_autocast_is_off() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            big = x[0, 0] * 1.0 > 1.0
        return net.a(x) * (2 if big else 1)

    plain = Net(body)
    network = pcgraph.compile(copy.deepcopy(plain))
    for value in (0.999, 1.0005, 0.9995):
        with torch.autocast("cpu", torch.bfloat16):
            assert_same(plain, network, torch.full((3, 4), value))


class Slotted:
    __slots__ = ("__factor",)

    def __init__(self, factor: int) -> None:
        self.__factor = factor

    def get(self) -> int:
        return self.__factor

    def put(self, factor: int) -> None:
        self.__factor = factor


class Double:
    def act(self, x: Tensor) -> Tensor:
        return x * 2


class Triple(Double):
    def act(self, x: Tensor) -> Tensor:
        return x * 3


def scenes(tmp: Path) -> Iterator[tuple[Callable[[Net, Tensor], Tensor], Callable[[], object]]]:
    """A body that reads something, and what changes it."""
    table, listed = {"k": 1}, [5.0, 4.0, 3.0, 2.0, 1.0]
    look, pop = table.get, listed.pop
    yield lambda net, x: net.a(x) * look("k"), lambda: table.update(k=table["k"] + 1)
    yield lambda net, x: net.a(x) * pop(), lambda: None
    ticks = itertools.count(1).__next__
    yield lambda net, x: net.a(x) * ticks(), lambda: None
    slotted = Slotted(1)
    yield lambda net, x: net.a(x) * slotted.get(), lambda: slotted.put(slotted.get() + 1)
    thing = Double()
    yield lambda net, x: thing.act(net.a(x)), lambda: setattr(thing, "__class__", Triple)
    other = type("Other", (Double,), {"act": lambda self, x: x * 2})()

    def reload() -> None:
        type(other).act.__code__ = (lambda self, x: x * 5).__code__

    yield lambda net, x: other.act(net.a(x)), reload
    module = types.ModuleType("pcgraph_test_settings")
    module.factor = 1  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module

    def imports(net: Net, x: Tensor) -> Tensor:
        import pcgraph_test_settings  # type: ignore[import-not-found]

        return net.a(x) * pcgraph_test_settings.factor

    yield imports, lambda: setattr(module, "factor", module.factor + 1)
    path = tmp / "flag"
    yield lambda net, x: net.a(x) * (2 if os.path.exists(path) else 1), path.touch
    source = random.Random(3)
    draw = source.random
    yield lambda net, x: net.a(x) * draw(), lambda: None


@pytest.mark.parametrize("number", range(9))
def test_python_state(number: int, tmp_path: Path) -> None:
    """The plain model and the network run in two equal worlds, so that what a call consumes is consumed in both."""
    results: list[list[Tensor]] = []
    for name in ("plain", "compiled"):
        folder = tmp_path / name
        folder.mkdir()
        body, change = next(itertools.islice(scenes(folder), number, None))
        net: nn.Module = Net(body)
        net = pcgraph.compile(net) if name == "compiled" else net
        seen = []
        for _ in range(4):
            seen.append(net(X).detach())
            change()
        results.append(seen)
    assert all(map(torch.equal, *results))
    assert not torch.equal(results[0][0], results[0][-1])


def test_programs_of_other_settings_are_others() -> None:
    def attends(net: Net, x: Tensor) -> Tensor:
        h = net.a(x).reshape(1, 1, 3, 4)
        return nn.functional.scaled_dot_product_attention(h, h, h)

    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        plain = Net(attends)
        with sdpa_kernel(backend):
            assert_same(plain, pcgraph.compile(copy.deepcopy(plain)), X)


class Doubling(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_refused_with_a_way_out() -> None:
    network = pcgraph.compile(Net(lambda net, x: net.a(x)))
    with Doubling(), pytest.raises(CaptureError, match="function mode"):
        network(X)
    network(X)
    with torch.device("cpu"):
        network(X)

    def sets(net: Net, x: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return net.a(x)

    with pytest.raises(CaptureError, match="global setting"):
        pcgraph.compile(Net(sets))(X)
    frozen = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).requires_grad_(False).eval()
    model = nn.Sequential(frozen, nn.Linear(4, 4))
    compiled = pcgraph.compile(copy.deepcopy(model))
    with pytest.raises(CaptureError, match="fast path"):
        compiled(X[None])
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        assert_same(model, compiled, X[None])
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_a_custom_function_learns_once() -> None:
    """Its backward may consume a graph of its own, also when its gradients are laid out in an unexpected way."""

    class Implicit(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, unused: Tensor) -> Tensor:
            with torch.enable_grad():
                ctx.inner = x.detach().requires_grad_()
                ctx.outer = ctx.inner.sin() * 2
            return ctx.outer.detach()

        @staticmethod
        def backward(ctx: Any, *errors: Tensor) -> Any:
            (gradient,) = torch.autograd.grad(ctx.outer, ctx.inner, errors[0])
            return gradient.t().contiguous().t(), None

    plain = Net(lambda net, x: net.b(Implicit.apply(net.a(x), net.b.weight)))
    network = pcgraph.compile(copy.deepcopy(plain))
    for _ in range(2):
        assert_same(plain, network, X)


GENERATOR = random.Random(5)


def test_a_random_number_generator_counts_when_it_is_called() -> None:
    """Not when a function that could draw is near; enums of torch's own kind can be compared."""

    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.often, self.backend = nn.Linear(4, 4), False, SDPBackend.MATH
            self.draw = GENERATOR.random

        def forward(self, x: Tensor) -> Tensor:
            scale = self.draw() if self.often else 2.0
            return self.a(x) * scale * (3.0 if self.backend is SDPBackend.MATH else 1.0)

    plain = Draws()
    network = pcgraph.compile(plain.__class__())
    network.load_state_dict(plain.state_dict())
    for often, backend in ((False, SDPBackend.MATH), (False, SDPBackend.CUDNN_ATTENTION), (True, SDPBackend.MATH)):
        plain.often = network.often = often
        plain.backend = network.backend = backend
        for _ in range(2):
            grads = []
            for candidate in (plain, network):
                GENERATOR.seed(7)
                candidate.zero_grad()
                candidate(X).square().sum().backward()
                grads.append(candidate.a.weight.grad)
            assert torch.equal(*grads)
        assert bool(network.cache_info()["once"]) == often, network.cache_info()


def test_data_that_is_set_to_itself_is_no_change() -> None:
    """As ``w.data = w.data.to(x.device)`` where it is there already; other data are refused."""

    def moved(net: Net, x: Tensor) -> Tensor:
        net.a.weight.data = net.a.weight.data.to(x.device, x.dtype)
        net.count.data = net.count.data.to(x)
        return net.a(x) + net.count

    def transposed(net: Net, x: Tensor) -> Tensor:
        net.a.weight.data = net.a.weight.data.t()
        return net.a(x)

    plain = Net(moved)
    network = pcgraph.compile(copy.deepcopy(plain))
    for _ in range(2):
        assert_same(plain, network, X)
    assert network.cache_info()["hits"] == 1
    with pytest.raises(CaptureError, match="replaces a tensor's"):
        pcgraph.compile(Net(transposed))(X)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng: next(iter(rng.random, None)), id="iter"),
        pytest.param(lambda rng: next(map(rng.getrandbits, [8])), id="map"),
        pytest.param(lambda rng: next(itertools.starmap(rng.random, [()])), id="starmap"),
        pytest.param(lambda rng: collections.defaultdict(rng.random)["new"], id="default"),
        pytest.param(lambda rng: next(map(random.getrandbits, [8])), id="Python's own"),
    ],
)
def test_a_draw_that_no_profiler_sees(draw: Callable[[random.Random], float]) -> None:
    """C code calls a generator's method."""

    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.rng = nn.Linear(4, 4), random.Random(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * draw(self.rng)

    plain = Draws()
    network = pcgraph.compile(copy.deepcopy(plain))
    seen: list[list[Tensor]] = []
    for candidate in (plain, network):
        random.seed(7)
        seen.append([])
        for _ in range(3):
            candidate.zero_grad()
            candidate(X).sum().backward()
            seen[-1].append(candidate.a.weight.grad.clone())
    assert all(map(torch.equal, *seen))
    assert not torch.equal(seen[0][0], seen[0][1])
