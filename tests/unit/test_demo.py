"""The demo's parts: batches, comparison, the unrolled reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pcgraph.demo.compare import largest_difference
from pcgraph.demo.models import ConvNet, LSTMClassifier, ResidualNet
from pcgraph.demo.train import accuracy, batches
from pcgraph.demo.unrolled import unrolled


def test_batches_cover_every_epoch_in_a_seeded_order() -> None:
    rows = list(batches(10, epochs=3, batch=3, seed=0, limit=None))
    assert [len(some) for some in rows] == [3] * 9
    epochs = [torch.cat(rows[3 * e : 3 * e + 3]).tolist() for e in range(3)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]
    again = list(batches(10, epochs=3, batch=3, seed=0, limit=None))
    assert all(torch.equal(a, b) for a, b in zip(rows, again, strict=True))


def test_batches_stop_at_the_limit() -> None:
    assert len(list(batches(10, epochs=3, batch=3, seed=0, limit=4))) == 4
    assert len(list(batches(10, epochs=1, batch=3, seed=0, limit=4))) == 3


def test_largest_difference_sees_nan() -> None:
    zeros, nans = [torch.zeros(3)], [torch.full((3,), math.nan)]
    assert largest_difference(zeros, zeros) == 0
    assert math.isnan(largest_difference(nans, nans))
    assert largest_difference([], []) == 0
    with pytest.raises(ValueError):
        largest_difference(zeros, [])


def test_accuracy_counts_and_leaves_train_mode() -> None:
    network = nn.Sequential(nn.Identity(), nn.Dropout(0.9))
    scores = torch.eye(4)
    assert accuracy(network, scores, torch.tensor([0, 1, 2, 0]), batch=3) == 0.75
    assert network.training


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize(
    "make", [lambda side: ConvNet(side, 10), lambda side: ResidualNet(10), lambda side: LSTMClassifier(side, 10)]
)
def test_networks_fit_both_data_sets(make: object, side: int) -> None:
    assert callable(make)
    assert make(side)(torch.randn(2, 1, side, side)).shape == (2, 10)


def test_unrolled_runs_one_step_per_time() -> None:
    torch.manual_seed(0)
    model, x = LSTMClassifier(8, 10).eval(), torch.randn(4, 1, 8, 8)
    with unrolled():
        result = model(x)
    assert _count(result, "TanhBackward0") == 2 * 8 * 2  # layers, steps, and tanh of the cell's input and of its state


def test_unrolled_equals_the_native_kernel_in_float64() -> None:
    torch.manual_seed(0)
    model, x = LSTMClassifier(8, 10).double().eval(), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    with unrolled():
        ours = model(x)
    assert torch.equal(ours, model(x))


def _count(tensor: torch.Tensor, name: str) -> int:
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo.extend(parent for parent, _ in node.next_functions)
    return sum(node.name() == name for node in seen)
