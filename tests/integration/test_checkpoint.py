"""`torch.utils.checkpoint`: gradients, buffers and random numbers as with autograd, and the memory really saved."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import pcgraph
from pcgraph.measure import peak_memory
from tests.equality import difference


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(width, width), nn.BatchNorm1d(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.dropout(F.gelu(self.norm(self.a(x))), 0.2, self.training))


class Net(nn.Module):
    def __init__(self, width: int = 16, depth: int = 4, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head, self.options = nn.Linear(width, 3), options

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, **self.options) if self.options else block(x)
        return self.head(F.dropout(x, 0.1))


def step(net: Any, seed: int, batch: int = 8) -> list[Tensor | None]:
    torch.manual_seed(seed)
    net.zero_grad()
    x = torch.randn(batch, net.head.in_features, requires_grad=True)
    y = net(x)
    y.square().mean().backward()
    state = [b.clone() for b in net.buffers()]
    return [y, x.grad, *(p.grad for p in net.parameters()), *state, torch.get_rng_state()]


@pytest.mark.parametrize("reentrant", [False, True])
def test_bitwise_with_batch_norm_and_dropout(reentrant: bool) -> None:
    """Batch norm's statistics are updated once more by the second evaluation, as with autograd."""
    plain = Net(use_reentrant=reentrant)
    network = pcgraph.compile(copy.deepcopy(plain))
    for seed in range(3):
        for one, two in zip(step(plain, seed), step(network, seed), strict=True):
            message = difference(one, two)
            assert message is None, message
    assert network.cache_info()["captures"] == 1
    assert network.graph.summary()["opaque"] == 0


def test_memory_is_saved() -> None:
    peaks = {}
    for name, options in {"kept": {}, "checkpointed": {"use_reentrant": False}}.items():
        plain = Net(64, 8, **options)
        network = pcgraph.compile(copy.deepcopy(plain))
        for net in (plain, network):
            step(net, 0, 1024)
        peaks[name] = [peak_memory(lambda net=net: step(net, 0, 1024)) for net in (plain, network)]
    assert peaks["checkpointed"][1] < 0.5 * peaks["kept"][1]
    assert peaks["checkpointed"][1] <= 1.02 * peaks["checkpointed"][0]


def test_a_kept_value_inside_of_a_checkpoint() -> None:
    class Keeps(Block):
        def forward(self, x: Tensor) -> Tensor:
            self.hidden = torch.tanh(self.a(x))
            return self.b(self.hidden * self.hidden)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.block, self.head = Keeps(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(checkpoint(self.block, self.head.weight[0] * x, use_reentrant=False))

    plain = Outer()
    network = pcgraph.compile(copy.deepcopy(plain))
    grads = []
    for net in (plain, network):
        out = net(torch.ones(3, 4))
        (out.sum() + net.block.hidden.sum()).backward()
        grads.append([p.grad for p in net.parameters()])
    assert [difference(one, two) for one, two in zip(*grads, strict=True)] == [None] * len(grads[0])


def test_other_hooks_on_saved_tensors_are_refused() -> None:
    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t.bfloat16(), lambda t: t.float()):
                return torch.tanh(self.fc(x))

    with pytest.raises(pcgraph.CaptureError, match="saved tensors"):
        pcgraph.compile(Rounds())(torch.ones(3, 4))
    network = pcgraph.compile(nn.Linear(4, 4), example_inputs=(torch.ones(3, 4),))
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda t: t.bfloat16(), lambda t: t.float()),
        pytest.raises(pcgraph.CaptureError, match="saved tensors"),
    ):
        network(torch.ones(3, 4))
    with torch.autograd.graph.save_on_cpu():
        network(torch.ones(3, 4)).sum().backward()
    assert network.weight.grad is not None


# -- a checkpoint around a network ----------------------------------------------------------------------------
class Around(nn.Module):
    """Batch norm, dropout and an operation that stays opaque."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(Square.apply(self.norm(self.a(x))) * F.dropout(x, 0.3))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * error


class Parts(Around):
    """Its inner values are returned: several segments."""

    def forward(self, x: Tensor) -> Any:
        h = self.norm(self.a(x))
        k = h.sin() * F.dropout(h, 0.5)
        return k, self.b(k).exp(), self.b(h)


class Asks(Around):
    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x))
        return self.b(h.tanh() if x[0, 0] > -0.9 else h.sin())


class Draws(Around):
    """Captured at every call."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.a(x))
        return self.b(F.dropout(h.sin() if torch.rand(()) > 0.5 else h, 0.2))


class Nested(Around):
    def forward(self, x: Tensor) -> Tensor:
        part = checkpoint(lambda t: F.dropout(self.norm(self.a(t)), 0.3), x, use_reentrant=False)
        return self.b(part).cos()


def total(y: Any) -> Tensor:
    return sum((k + 1) * t.square().sum() for k, t in enumerate(y if isinstance(y, tuple) else (y,)))


def alone(m: Any, **options: Any) -> list[Any]:
    results: list[Any] = []
    for k in range(3):
        x = X.roll(k, 0).clone().requires_grad_()
        loss = total(checkpoint(m, x, **options))
        loss.backward(retain_graph=not options["use_reentrant"])
        if not options["use_reentrant"]:
            loss.backward()
        results += [loss, x.grad]
    return results


def among_others(m: Any, **options: Any) -> list[Any]:
    torch.manual_seed(5)
    before, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def part(x: Tensor) -> Tensor:
        return total(m(norm(before(x)))).sin() * 2

    losses = [checkpoint(part, X.roll(k, 0).clone().requires_grad_(), **options) for k in range(3)]
    for loss in reversed(losses):
        loss.backward()
    return [*losses, before.weight.grad, *norm.buffers()]


X = torch.linspace(-1, 1, 20).reshape(5, 4)


@pytest.mark.parametrize("options", [{"use_reentrant": False}, {"use_reentrant": True}], ids=["hooks", "reentrant"])
@pytest.mark.parametrize("scene", [alone, among_others], ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", [Around, Parts, Asks, Draws, Nested], ids=lambda f: f.__name__)
def test_around_a_network(make: Any, scene: Any, options: dict[str, Any]) -> None:
    """The first call may be inside, statistics move twice and masks are drawn again, as with the plain model."""
    results = []
    plain = make()
    for candidate in (plain, pcgraph.compile(copy.deepcopy(plain))):
        torch.manual_seed(3)
        found = scene(candidate, **options)
        grads = [p.grad for p in candidate.parameters()]
        results.append([*found, *grads, *candidate.buffers(), torch.get_rng_state()])
    for k, (one, two) in enumerate(zip(*results, strict=True)):
        message = difference(one, two)
        assert message is None, f"{k}: {message}"


def test_around_a_network_memory_is_saved() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        *(nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.GELU()) for _ in range(8))
    )
    x = torch.randn(1024, 64, requires_grad=True)

    def step(parts: Any, around: bool) -> None:
        y = x
        for part in parts:
            y = checkpoint(part, y, use_reentrant=False) if around else part(y)
        y.sum().backward()

    networks = [pcgraph.compile(part) for part in plain]
    peaks = []
    for parts, around in ((networks, False), (networks, True), (plain, True)):
        step(parts, around)
        peaks.append(peak_memory(lambda parts=parts, around=around: step(parts, around)))
    assert peaks[1] < 0.6 * peaks[0]
    assert peaks[1] <= 1.05 * peaks[2]


def test_what_cannot_be_inside_of_a_checkpoint_is_refused() -> None:
    class Keeps(Around):
        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.a(x)
            return self.b(self.hidden.sin())

    with pytest.raises(pcgraph.CaptureError, match="inside of a checkpoint"):
        checkpoint(pcgraph.compile(Keeps()), X, use_reentrant=False)
    selective = functools.partial(create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default])
    with pytest.raises(pcgraph.CaptureError, match="selective"):
        checkpoint(pcgraph.compile(Around()), X, use_reentrant=False, context_fn=selective)


def test_two_calls_with_a_checkpoint_inside() -> None:
    """Learning reads the statistics once more, as they are by then: no reason to complain that they moved."""
    plain = Net(use_reentrant=False)
    network = pcgraph.compile(copy.deepcopy(plain))
    grads = []
    for net in (plain, network):
        torch.manual_seed(0)
        x = torch.randn(8, 16)
        losses = [net(x).square().mean(), net(x * 2).square().mean()]
        for loss in losses:
            loss.backward()
        grads.append([*(p.grad for p in net.parameters()), *net.buffers()])
    for one, two in zip(*grads, strict=True):
        assert difference(one, two) is None
