"""`torch.utils.checkpoint`: gradients, buffers and random numbers as with autograd, and the memory really saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
