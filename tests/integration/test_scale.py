"""Invariant 7: long and deep networks compile in linear work, without recursion, and learn exactly."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

import pcgraph


class Recurrent(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.i, self.h, self.o = steps, nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], 4)
        for t in range(self.steps):
            h = torch.tanh(self.i(x[:, t]) + self.h(h))
        return self.o(h)


def exact(model: nn.Module, x: torch.Tensor) -> pcgraph.PCNetwork:
    network = pcgraph.compile(model)
    network(x).square().sum().backward()
    mine = [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
    model.zero_grad()
    model(x).square().sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(mine, model.parameters(), strict=True))
    return network


@pytest.mark.slow
def test_rnn_of_5000_steps() -> None:
    limit = sys.getrecursionlimit()
    network = exact(Recurrent(5000), torch.randn(3, 5000, 2))
    assert sys.getrecursionlimit() == limit
    assert network.graph.steps == 3 * 5000
    assert len(network.graph.parameter_uses) == 4 * 5000 + 2
    assert len(network.graph.levelled()) >= len(network.graph)


def test_mlp_of_1000_layers() -> None:
    layers = [m for _ in range(1000) for m in (nn.Linear(4, 4), nn.Tanh())]
    network = exact(nn.Sequential(*layers), torch.randn(2, 4))
    assert network.graph.steps == 1999
    assert pcgraph.schedule(network.graph, pcgraph.ZIL()).work[0] == 2000


def test_work_grows_linearly_and_kinds_do_not() -> None:
    """Program lines per step are constant; the number of traced kinds does not depend on the length."""
    from pcgraph.codegen.program import PROGRAMS

    lines, kinds = {}, {}
    for steps in (20, 40, 80):
        network = exact(Recurrent(steps), torch.randn(3, steps, 2))
        lines[steps] = sum(source.count("\n") for source in network.sources.values())
        kinds[steps] = len(PROGRAMS)
    per_step = (lines[80] - lines[40]) / 40
    assert (lines[40] - lines[20]) / 20 == per_step
    assert kinds[80] - kinds[40] <= 4  # the views of a longer input are kinds of their own
