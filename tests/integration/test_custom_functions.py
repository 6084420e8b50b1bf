"""Custom autograd functions that reach tensors around their arguments, as adjoint methods do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph.errors import CaptureError


class Adjoint(torch.autograd.Function):
    """Runs a function again while learning, and differentiates it by the tensors that it has saved."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], x: Tensor, *learned: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x, *learned)
        with torch.no_grad():
            return function(x)

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        x, *learned = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return None, *torch.autograd.grad(ctx.function(x), (x, *learned), errors, allow_unused=True)


class Net(nn.Module):
    def __init__(self, call: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(3, 3), nn.Linear(3, 3)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)

    def twice(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x).tanh())


def module(net: Net, x: Tensor) -> Tensor:
    return Adjoint.apply(net.inner, net.outer(x), *net.inner.parameters())


def method(net: Net, x: Tensor) -> Tensor:
    return Adjoint.apply(net.twice, net.outer(x), *net.inner.parameters()) + net.inner(x)


def mask(net: Net, x: Tensor) -> Tensor:
    kept = (x > 0).float()
    return Adjoint.apply(lambda z: net.inner(z) * kept, net.outer(x), *net.inner.parameters())


def data(net: Net, x: Tensor) -> Tensor:
    return Adjoint.apply(lambda z: net.inner(z) * x, net.outer(x), *net.inner.parameters())


def own_function(net: Net, x: Tensor) -> Tensor:
    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            return y * x.detach()

        @staticmethod
        def backward(ctx: Any, *errors: Tensor) -> Any:
            return errors[0] * x.detach()

    return Scaled.apply(net.outer(x))


def assert_learns_alike(plain: Net, network: Any, x: Tensor) -> None:
    seen = []
    for call, model in ((plain, plain), (network, network.module)):
        model.zero_grad()
        output = call(x)
        output.square().sum().backward()
        seen.append([output, *(p.grad for p in model.parameters())])
    for one, two in zip(*seen, strict=True):
        assert (one is None) == (two is None)
        assert one is None or torch.equal(one, two)


@pytest.mark.parametrize("call", [module, method, mask, data, own_function])
def test_learns_by_what_it_reaches(call: Callable[[Any, Tensor], Tensor]) -> None:
    """A parameter among the saved tensors is the module's own, and data in a closure are those of the call."""
    plain = Net(call)
    network = pcgraph.compile(copy.deepcopy(plain))
    for _ in range(3):
        assert_learns_alike(plain, network, torch.randn(2, 3))


@pytest.mark.parametrize("from_outside", [True, False])
def test_what_learns_may_not_be_reached_in_two_ways(from_outside: bool) -> None:
    def call(net: Net, x: Tensor) -> Tensor:
        h = x if from_outside else net.outer(x)
        return Adjoint.apply(lambda z: net.inner(z) * h, net.outer(x), h)

    with pytest.raises(CaptureError, match="Adjoint is handed a tensor that needs a gradient, and reaches it"):
        pcgraph.compile(Net(call))(torch.randn(2, 3, requires_grad=True))


def test_hooks_of_parameters_fire_as_often() -> None:
    """Once for the whole gradient, and once where the function's own backward differentiates."""
    counts = []
    for compiled in (False, True):
        model, fired = Net(method), []
        for parameter in model.parameters():
            parameter.register_hook(lambda g, fired=fired: fired.append(g.sum().item()) or g * 2)
        call = pcgraph.compile(model) if compiled else model
        torch.manual_seed(1)
        call(torch.randn(2, 3)).sum().backward()
        counts.append((sorted(fired), [p.grad for p in model.parameters()]))
    assert counts[0][0] == counts[1][0] and len(counts[0][0]) > 4
    assert all(map(torch.equal, counts[0][1], counts[1][1]))


def test_simulation_reaches_them_too() -> None:
    plain, x = Net(method).double(), torch.randn(2, 3, dtype=torch.float64)
    network = pcgraph.compile(copy.deepcopy(plain))
    plain(x).square().sum().backward()
    trace = network.simulate(x, loss=lambda output: output.square().sum())
    assert trace.gradients.keys() == dict(plain.named_parameters()).keys()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(trace.gradients[name], parameter.grad, rtol=0, atol=1e-12)  # sums in another order


class Assigns(torch.autograd.Function):
    """Writes past autograd into the tensor that it returns, as torchdiffeq does for the slopes of a step."""

    @staticmethod
    def forward(ctx: Any, scratch: Tensor, value: Tensor, place: int) -> Tensor:
        ctx.place = place
        scratch.data[..., place] = value
        return scratch

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        return errors[0], errors[0][..., ctx.place], None


class Normalises(torch.autograd.Function):
    """Changes its operand in place and returns another tensor, as TabNet's sparsemax does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x -= x.max(dim=-1, keepdim=True)[0]
        ctx.save_for_backward(y := x.exp())
        return y

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        return errors[0] * ctx.saved_tensors[0]


def slopes(net: Net, x: Tensor) -> Tensor:
    k = Assigns.apply(torch.empty(*x.shape, 3), x, 0)
    for i in range(1, 3):
        k = Assigns.apply(k, net.inner(k[..., :i].sum(-1)), i)
    return k.tanh().sum(-1)


def normalised(net: Net, x: Tensor) -> Tensor:
    return net.outer(Normalises.apply(net.inner(x)))


def normalised_part(net: Net, x: Tensor) -> Tensor:
    return net.outer(Normalises.apply(net.inner(x.repeat(2, 2)[:, :3])[:2]))


@pytest.mark.parametrize("call", [slopes, normalised, normalised_part])
def test_writes_to_an_operand_and_returns_another_tensor(call: Callable[[Any, Tensor], Tensor]) -> None:
    plain = Net(call)
    network = pcgraph.compile(copy.deepcopy(plain))
    for _ in range(3):
        assert_learns_alike(plain, network, torch.randn(2, 3))
    assert not network.cache_info()["once"] and network.cache_info()["captures"] == 1


def uses_it_up(net: Net, x: Tensor) -> Tensor:
    h = net.inner(x)
    return Normalises.apply(h) + h


def uses_a_view(net: Net, x: Tensor) -> Tensor:
    h = net.inner(x)
    first = h[0]
    return Normalises.apply(h) + first


def has_used_it(net: Net, x: Tensor) -> Tensor:
    h = net.inner(x)
    squares = h * h  # multiplication keeps what is written to now
    return Assigns.apply(h, x[:, 0], 1) + squares


@pytest.mark.parametrize(
    ("call", "message"),
    [(uses_it_up, "used again"), (uses_a_view, "used again"), (has_used_it, "behind autograd's back that another")],
)
def test_what_a_write_makes_ambiguous_is_refused(call: Callable[[Any, Tensor], Tensor], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        pcgraph.compile(Net(call))(torch.randn(2, 3))
