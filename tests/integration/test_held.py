"""Values that the caller gets hold of: returned and used on, kept on the model, hooked, written into arguments.

Autograd shows such a value its complete error. Every test trains a model by both and compares all there is to see.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph
from tests.equality import difference


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4))
        self.register_buffer("memory", torch.zeros(4))
        self.log: list[Tensor] = []


def check(model: Base, step: Callable[[Any], list[Tensor | None]], calls: int = 3) -> pcgraph.PCNetwork:
    """The same `step` by autograd and by Z-IL: what it returns, and the parameters' gradients, equal to the bit."""
    network = pcgraph.compile(copy.deepcopy(model))
    for call in range(calls):
        seen = []
        for net in (model, network):
            net.zero_grad()
            torch.manual_seed(call)
            found = step(net)
            seen.append([*found, *net.log, *(p.grad for p in net.parameters())])
        assert len(seen[0]) == len(seen[1])
        for one, two in zip(*seen, strict=True):
            message = difference(one, two)
            assert message is None, f"call {call}: {message}"
    return network


class Returns(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = torch.tanh(self.a(x))
        k = torch.relu(h * h + self.b(h))
        return k.sum(), h, self.b(k * h), k.t()


LOSSES: dict[str, Callable[..., tuple[Tensor, tuple[Tensor, ...]]]] = {
    "everything": lambda y, h, z, k: (y + h.square().sum() + z.sum() + (k.t() * h).sum(), (h, z)),
    "what comes after": lambda y, h, z, k: (z.square().sum(), (h,)),
    "what comes before": lambda y, h, z, k: (h.square().sum(), (h,)),
    "by a transposed error": lambda y, h, z, k: ((h.t() @ z).sum() + y, (z, h)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_returned_value_has_its_complete_gradient(loss: str) -> None:
    """`retain_grad`, hooks and `autograd.grad` on a value that the network goes on with see all of its error."""

    def step(net: Any) -> list[Tensor | None]:
        y, h, z, k = net(torch.randn(3, 4))
        h.retain_grad()
        log: list[Tensor] = []
        h.register_hook(lambda g: log.append(g.clone()))
        total, wanted = LOSSES[loss](y, h, z, k)
        partial = torch.autograd.grad(total, wanted, retain_graph=True)
        total.backward()
        return [total, *partial, h.grad, *log]

    network = check(Returns(), step)
    assert network.cache_info()["captures"] == 1


class Stack(Base):
    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for _ in range(40):
            states.append(torch.tanh(self.a(states[-1])) + states[-1] * self.scale)
        return states[1:]


@pytest.mark.parametrize("picks", [(-1,), (0, 17), tuple(range(40))])
def test_all_states_of_a_recurrent_network(picks: tuple[int, ...]) -> None:
    def step(net: Any) -> list[Tensor | None]:
        states = net(torch.randn(3, 4))
        for state in states:
            state.retain_grad()
        sum(states[i].square().sum() for i in picks).backward()
        return [state.grad for state in states]

    check(Stack(), step, calls=2)


class ReturnsItsInput(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.b(torch.tanh(self.a(x)) * x), x, self.scale


def test_a_returned_input_is_the_input() -> None:
    def step(net: Any) -> list[Tensor | None]:
        leaf = torch.randn(3, 4, requires_grad=True)
        x = leaf * 1
        y, same, scale = net(x)
        assert same is x and scale is net.scale
        same.register_hook(lambda g: net.log.append(g.clone()))
        (y.sum() + (same * scale).square().sum()).backward()
        return [leaf.grad]

    check(ReturnsItsInput(), step)


class SeveralErrorsInside(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x)
        return F.normalize(h) @ self.b.weight, h


def test_an_operation_that_adds_to_one_operand_twice() -> None:
    def step(net: Any) -> list[Tensor | None]:
        y, h = net(torch.randn(3, 4))
        h.retain_grad()
        loss = y.sum() + h.square().sum()
        (partial,) = torch.autograd.grad(loss, h, retain_graph=True)
        loss.backward()
        return [y, h, partial, h.grad]

    check(SeveralErrorsInside(), step)


class Keeps(Base):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        self.features = [h, (h * 2, {"view": h[:, :2]})]
        self.auxiliary = h.square().mean()
        z = self.b(h)
        z.retain_grad()
        z.register_hook(lambda g: self.log.append(g.clone()))
        handle = z.register_hook(lambda g: g * 100)
        z.register_hook(lambda g: g * 2)
        handle.remove()
        self.z = z
        return torch.relu(z).sum()


def test_tensors_kept_on_the_model_and_hooks() -> None:
    def step(net: Any) -> list[Tensor | None]:
        out = net(torch.randn(3, 4))
        h, (twice, views) = net.features
        net.auxiliary.register_hook(lambda g: g * 1.5)
        h.retain_grad()
        (out + net.auxiliary + twice.sum() * 0.5 + views["view"].square().sum()).backward()
        return [out, h.grad, net.z.grad, net.auxiliary]

    check(Keeps(), step)


class CarriesState(Base):
    def __init__(self) -> None:
        super().__init__()
        self.state: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x) if self.state is None else torch.tanh(self.a(x) + self.b(self.state))
        self.state = h
        return h * self.scale


def test_a_hidden_state_kept_between_calls_carries_errors_back() -> None:
    """Backpropagation through time over three calls of the network."""

    def step(net: Any) -> list[Tensor | None]:
        net.state = None
        x = torch.randn(3, 4)
        sum(net(x * k).square().sum() for k in range(3)).backward()
        return [net.state]

    check(CarriesState(), step)


class Writes(Base):
    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x.mul_(self.scale)
        y[:, 1] = self.a(x)[:, 2]
        self.memory.mul_(0.5).add_(x.mean(0))
        return self.a(x).sum() + (y * self.scale).sum() + self.memory.sum(), x


def test_arguments_and_buffers_written_with_a_gradient() -> None:
    def step(net: Any) -> list[Tensor | None]:
        net.memory = net.memory.detach()
        leaf = torch.randn(3, 4, requires_grad=True)
        x, y = leaf * 1, torch.randn(3, 4)
        out, same = net(x, y)
        assert same is x and y.requires_grad
        (out + x.sum() + y.square().sum() + net.memory.square().sum()).backward()
        return [out, x, y, net.memory, leaf.grad]

    check(Writes(), step)


def test_hooks_on_inputs_and_parameters_fire_once() -> None:
    class Hooks(Base):
        def __init__(self) -> None:
            super().__init__()
            self.scales: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            x.register_hook(lambda g: self.log.append(g.clone()))
            self.handle = self.scale.register_hook(self.scales.append)
            return torch.tanh(self.a(x)) * self.scale

    def step(net: Any) -> list[Tensor | None]:
        leaf = torch.randn(3, 4, requires_grad=True)
        net(leaf).square().sum().backward()
        net.handle.remove()
        return [leaf.grad, *net.scales]

    check(Hooks(), step)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_backward_hooks_of_modules_see_and_change_errors() -> None:
    class Hooked(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(x)) * self.scale) + self.b(x)

    calls: list[list[Tensor | None]] = []

    def see(module: nn.Module, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]) -> tuple[Any, ...]:
        calls.append([*(g if g is None else g.clone() for g in (*grad_input, *grad_output))])
        return tuple(g if g is None else g * 2 for g in grad_input)

    def step(net: Any) -> list[Tensor | None]:
        calls.clear()
        handles = [
            net.b.register_full_backward_hook(see),
            net.b.register_full_backward_pre_hook(lambda module, errors: (errors[0] * 3,)),
            net.a.register_full_backward_hook(lambda *given: calls.append([given[2][0].clone()])),
        ]
        try:
            net(torch.randn(3, 4)).square().sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        return [tensor for call in calls for tensor in call]

    check(Hooked(), step)


class Cache:
    """A result class as a user writes it; nothing is registered anywhere."""

    def __init__(self) -> None:
        self.layers: list[dict[str, Tensor]] = []
        self.length = 0

    def add(self, keys: Tensor, values: Tensor) -> None:
        self.layers.append({"keys": keys, "values": values})
        self.length += keys.shape[0]


class ReturnsACache(Base):
    def forward(self, x: Tensor) -> tuple[Tensor, Cache]:
        cache = Cache()
        for _ in range(2):
            keys, x = self.a(x), torch.tanh(self.b(x))
            cache.add(keys, x.detach())
        return (x * self.scale).sum(), cache


def test_an_object_that_is_returned_is_made_anew_at_each_call() -> None:
    caches: list[Cache] = []

    def step(net: Any) -> list[Tensor | None]:
        loss, cache = net(torch.randn(3, 4))
        assert cache.length == 6 and type(cache) is Cache
        caches.append(cache)
        (loss + cache.layers[0]["keys"].square().sum()).backward()
        return [loss, *(t for layer in cache.layers for t in layer.values())]

    assert check(ReturnsACache(), step).cache_info()["captures"] == 1
    assert len({id(cache) for cache in caches}) == len({id(cache.layers) for cache in caches}) == 6


def test_indexing_by_integers_has_a_fixed_shape() -> None:
    class Indexed(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.a(x)[torch.tensor([0, 2, 0])] * self.scale[torch.arange(4)]

    def step(net: Any) -> list[Tensor | None]:
        y = net(torch.randn(3, 4))
        y.square().sum().backward()
        return [y]

    assert check(Indexed(), step).cache_info()["captures"] == 1


class KeepsWhatAnOperationAddsTo(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.hidden = self.a(x)
        return F.normalize(self.hidden) @ self.b.weight


def test_a_kept_value_that_an_operation_adds_to_twice() -> None:
    """Refused once, with what to do about it, and exact from then on."""
    model = KeepsWhatAnOperationAddsTo()
    network = pcgraph.compile(copy.deepcopy(model))
    with pytest.raises(pcgraph.CaptureError, match="more than once") as error:
        network(torch.ones(3, 4))
    assert "test_held.py" in str(error.value)
    grads = []
    for net in (model, network):
        y = net(torch.ones(3, 4))
        net.hidden.retain_grad()
        (y.sum() + net.hidden.square().sum()).backward()
        grads.append([net.hidden.grad, *(p.grad for p in net.parameters())])
    assert [difference(one, two) for one, two in zip(*grads, strict=True)] == [None] * len(grads[0])


def test_hooks_of_values_that_no_gradient_comes_to_do_not_fire() -> None:
    """As of the samples whose gradients a library looks at for NaN."""

    class Hooks(Base):
        def forward(self, x: Tensor) -> Tensor:
            aside, h = self.b(x), torch.tanh(self.a(x))
            for value in (aside, h):
                value.register_hook(lambda g: self.log.append(g.clone()))
            return h * aside.detach()

    def step(net: Any) -> list[Tensor | None]:
        net(torch.randn(2, 4)).square().sum().backward()
        return []

    model = Hooks()
    check(model, step)
    assert len(model.log) == 3
