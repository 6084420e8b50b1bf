"""Models that differentiate, vectorise, checkpoint or hand functions on while they run: looked into, to the bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

import pcgraph
from tests.equality import difference

Forward = Callable[["Net", Tensor], Any]
FORWARDS: dict[str, Forward] = {}


class Net(nn.Module):
    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body = forward

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def forward(function: Forward) -> Forward:
    FORWARDS[function.__name__] = function
    return function


@forward
def energies_and_forces(net: Net, x: Tensor) -> Any:
    x.requires_grad_()
    energy = torch.tanh(net.b(F.silu(net.a(x)))).square().sum()
    return energy, -torch.autograd.grad(energy, x, create_graph=True)[0]


@forward
def forces_on_a_copy(net: Net, x: Tensor) -> Any:
    x = x.detach().requires_grad_()
    hidden = F.layer_norm(net.a(x), (4,))
    energy = torch.softmax(net.b(torch.relu(hidden)), -1)[:, 0].sum()
    (force,) = torch.autograd.grad(energy, x, create_graph=True)
    return net.b(force).sum() + energy


@forward
def a_leaf_for_the_sake_of_checkpoints(net: Net, x: Tensor) -> Any:
    hidden = x[:, None]
    hidden.requires_grad = True  # as wav2vec2's feature extractor does
    return net.b(torch.tanh(net.a(hidden)))


@forward
def gradient_as_a_number(net: Net, x: Tensor) -> Any:
    hidden = net.a(x)
    (slope,) = torch.autograd.grad(torch.tanh(hidden).sum(), hidden)
    return net.b(hidden * slope)


@forward
def forces_of_a_convolution_with_dropout(net: Net, x: Tensor) -> Any:
    x = x.detach().requires_grad_()
    image = F.dropout(net.a(x), 0.3).reshape(1, 1, 3, 4)
    energy = F.conv2d(image, net.b.weight[None, None, :2, :2]).exp().mean()
    return energy + torch.autograd.grad(energy, x, create_graph=True)[0].norm()


@forward
def vectorised(net: Net, x: Tensor) -> Any:
    return torch.vmap(lambda row: torch.tanh(net.a(row)) * row.sum())(net.b(x)).sum(0)


@forward
def vectorised_over_one_of_two(net: Net, x: Tensor) -> Any:
    return torch.func.vmap(lambda row, w: F.gelu(net.a(row)) @ w, in_dims=(0, None))(net.b(x), net.b.weight)


@forward
def functional_gradient(net: Net, x: Tensor) -> Any:
    return torch.func.grad(lambda row: torch.tanh(net.a(row)).square().sum())(net.b(x))


@forward
def functional_jacobian(net: Net, x: Tensor) -> Any:
    return torch.func.jacrev(lambda row: torch.tanh(net.a(row)))(x[0]) @ x.t()


@forward
def functional_call(net: Net, x: Tensor) -> Any:
    return torch.func.functional_call(net.a, {k: v * 2 for k, v in net.b.named_parameters()}, (net.b(x),))


@forward
def first_order_adaptation(net: Net, x: Tensor) -> Any:
    fast = {k: p.detach().clone().requires_grad_() for k, p in net.a.named_parameters()}
    loss = torch.tanh(net.b(torch.func.functional_call(net.a, fast, (x,)))).square().mean()
    slopes = torch.autograd.grad(loss, list(fast.values()))
    adapted = {k: p - 0.1 * slope for (k, p), slope in zip(net.a.named_parameters(), slopes, strict=True)}
    return net.b(torch.func.functional_call(net.a, adapted, (x,)))


@forward
def distance_of_the_users(net: Net, x: Tensor) -> Any:
    return F.triplet_margin_with_distance_loss(
        net.b(x), net.b(x + 1), x - 1, distance_function=lambda p, q: net.a(p - q).norm(dim=-1)
    )


@forward
def checkpointed(net: Net, x: Tensor) -> Any:
    return net.b(torch.utils.checkpoint.checkpoint(_block(net), net.b(x), use_reentrant=False))


@forward
def checkpointed_reentrantly(net: Net, x: Tensor) -> Any:
    return net.b(torch.utils.checkpoint.checkpoint(_block(net), net.b(x), use_reentrant=True))


@forward
def checkpointed_reentrantly_without_a_gradient(net: Net, x: Tensor) -> Any:
    return net.b(torch.utils.checkpoint.checkpoint(_block(net), x, use_reentrant=True))


def _block(net: Net) -> Callable[[Tensor], Tensor]:
    return lambda t: F.dropout(torch.tanh(net.a(t)))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", FORWARDS)
def test_bitwise(name: str) -> None:
    plain = Net(FORWARDS[name])
    network = pcgraph.compile(copy.deepcopy(plain))
    for call in range(3):
        seen = []
        for net in (plain, network):
            torch.manual_seed(call)
            net.zero_grad()
            x = torch.randn(3, 4)
            out = net(x)
            outputs = out if isinstance(out, tuple) else (out,)
            sum((o * o).sum() for o in outputs).backward()
            seen.append([*outputs, x.grad, *(p.grad for p in net.parameters()), torch.get_rng_state()])
        for one, two in zip(*seen, strict=True):
            message = difference(one, two)
            assert message is None, f"call {call}: {message}"
    assert network.cache_info()["captures"] == 1
    assert network.graph.summary()["opaque"] == 0


def _scripted(x: Tensor, y: Tensor) -> Tensor:
    return torch.tanh(x) * y + torch.sigmoid(x)


def test_what_stays_out_of_sight_is_refused_with_its_line() -> None:
    script = torch.jit.script(_scripted)
    for _ in range(3):  # then the interpreter differentiates by formulas of its own
        script(torch.ones(3, 4, requires_grad=True), torch.ones(3, 4)).sum().backward()

    def branches(net: Net, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda t: net.a(t), lambda t: net.b(t), (x,))

    refused: dict[str, Forward] = {"TorchScript": lambda net, x: net.b(script(net.a(x), x)), "cond": branches}
    for word, body in refused.items():
        with pytest.raises(pcgraph.CaptureError, match=word) as error:
            pcgraph.compile(Net(body))(torch.ones(3, 4))
        assert "test_inside.py" in str(error.value) and error.value.hint


class Sometimes(torch.autograd.Function):
    """A custom function that hands its operand an error only now and then."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.quiet = bool(x.sum() < 0)
        return x * 2

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor | None:
        return None if ctx.quiet else error * 2


def test_a_custom_function_that_changes_its_mind() -> None:
    plain = Net(lambda net, x: net.b(Sometimes.apply(net.a(x))))
    network = pcgraph.compile(copy.deepcopy(plain))
    for sign in (-100.0, 100.0, -100.0, 100.0):
        grads = []
        for net in (plain, network):
            net.zero_grad()
            net.a.bias.data.fill_(sign)
            net(torch.ones(3, 4)).square().sum().backward()
            grads.append([p.grad for p in net.parameters()])
        assert [difference(one, two) for one, two in zip(*grads, strict=True)] == [None] * 4


@pytest.mark.parametrize("layers", ["linear", "convolution"])
def test_lazy_modules_get_their_shapes_at_the_first_call(layers: str) -> None:
    """Parameters, statistics and random state are those of the module's own first call."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        if layers == "linear":
            return nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(3))
        lazy = [nn.LazyConv2d(4, 3), nn.BatchNorm2d(4), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3)]
        return nn.Sequential(*lazy, nn.Dropout())

    plain, model = build(), build()
    network = pcgraph.compile(model)
    x = torch.randn(2, 5) if layers == "linear" else torch.randn(2, 3, 8, 8)
    for step in range(3):
        states = []
        for candidate in (plain, network):
            torch.manual_seed(step)
            candidate(x).square().sum().backward()
            states.append(torch.get_rng_state())
        assert torch.equal(*states)
        for a, b in zip(plain.parameters(), model.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a, b) and torch.equal(a.grad, b.grad)
        assert all(map(torch.equal, plain.buffers(), model.buffers()))
    assert network.cache_info()["captures"] == 1


def test_random_numbers_between_calls_below_torch() -> None:
    """A call without operands comes between an ATen call and the question whether its result needs a gradient."""

    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.detach().requires_grad_()
            h = self.a(x).view(2, 3, 4)
            kept = torch.rand(2, 1, 1)
            (force,) = torch.autograd.grad((h.div(0.9) * kept).sin().sum(), x, create_graph=True)
            return force * self.a(x)

    plain = Forces()
    network = pcgraph.compile(copy.deepcopy(plain))
    x = torch.randn(6, 4)
    for seed in range(2):
        for candidate in (plain, network):
            torch.manual_seed(seed)
            candidate(x).sum().backward()
    assert plain.a.weight.grad is not None
    assert torch.equal(plain.a.weight.grad, network.a.weight.grad)
