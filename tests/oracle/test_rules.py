"""Every rule against its naive NumPy twin, float64, on ten random graphs: values, errors and gradients to 1e-9."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph
from pcgraph.graph import Role
from tests.oracle.naive import Naive, Node

CLOSE = 1e-9
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "linear": F.linear, "tanh": torch.tanh, "sin": torch.sin, "add": torch.add, "mul": torch.mul,
}  # fmt: skip


class Steps(nn.Module):
    """The same steps as a module."""

    def __init__(self, steps: list[Node], weights: dict[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        self.steps = steps
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.from_numpy(w.copy())) for name, w in weights.items()})

    def forward(self, *inputs: Tensor) -> Tensor:
        values = list(inputs)
        for operation, arguments in self.steps:
            operands = [self.weights[a] if isinstance(a, str) else values[a] for a in arguments]
            values.append(FUNCTIONS[operation](*operands))
        return values[-1]


def layer(weights: dict[str, Any], draw: np.random.Generator, size: tuple[int, int] = (4, 4)) -> tuple[str, str]:
    k = len(weights) // 2
    weights[f"w{k}"], weights[f"b{k}"] = 0.4 * draw.standard_normal(size), 0.1 * draw.standard_normal(size[0])
    return f"w{k}", f"b{k}"


def residual(draw: np.random.Generator) -> tuple[list[Node], dict[str, Any], int]:
    weights: dict[str, Any] = {}
    steps: list[Node] = [("linear", (0, *layer(weights, draw)))]
    for _ in range(3):
        stream = len(steps)
        steps.append(("linear", (stream, *layer(weights, draw))))
        steps.append(("tanh", (stream + 1,)))
        steps.append(("add", (stream, stream + 2)))
    steps.append(("linear", (len(steps), *layer(weights, draw, (2, 4)))))
    return steps, weights, 1


def recurrent(draw: np.random.Generator) -> tuple[list[Node], dict[str, Any], int]:
    weights: dict[str, Any] = {}
    into, on = layer(weights, draw), layer(weights, draw)
    steps: list[Node] = []
    times = 4

    def push(*step: Any) -> int:
        steps.append((step[0], tuple(step[1:])))
        return times + len(steps) - 1

    state = push("tanh", push("linear", 0, *into))
    for t in range(1, times):
        state = push("tanh", push("add", push("linear", t, *into), push("linear", state, *on)))
    push("linear", state, *layer(weights, draw, (2, 4)))
    return steps, weights, times


def dag(draw: np.random.Generator) -> tuple[list[Node], dict[str, Any], int]:
    """Long skips, x * x, shared weights, dead ends."""
    choose = random.Random(int(draw.integers(1 << 30)))
    weights: dict[str, Any] = {}
    layers = [layer(weights, draw) for _ in range(3)]
    steps: list[Node] = [("linear", (0, *layers[0])), ("linear", (1, *layers[1]))]
    for _ in range(choose.randint(6, 14)):
        hidden = range(2, 2 + len(steps))
        near = hidden[-1] if choose.random() < 0.9 else choose.choice(hidden)
        kind = choose.choice(("linear", "tanh", "sin", "add", "add", "mul"))
        if kind == "linear":
            steps.append(("linear", (near, *choose.choice(layers))))
        elif kind == "mul":  # of bounded values, as products of products run away
            steps.append(("tanh", (near,)))
            near = 1 + len(steps)
            steps.append(("mul", (near, near)))
        else:
            other = (choose.choice(hidden),) if kind == "add" else ()
            steps.append((kind, (near, *other)))
    steps.append(("linear", (1 + len(steps), *layer(weights, draw, (2, 4)))))
    return steps, weights, 2


MAKERS = [residual, residual, recurrent, recurrent, *[dag] * 6]


class Pair:
    """One network, in NumPy and compiled."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.steps, weights, count = MAKERS[seed](draw)
        inputs = [draw.standard_normal((3, 4)) for _ in range(count)]
        self.naive = Naive(weights, inputs, draw.standard_normal((3, 2))).build(self.steps)
        self.count = count
        self.module = Steps(self.steps, weights)
        self.network = pcgraph.compile(self.module)
        self.inputs = tuple(torch.from_numpy(x) for x in inputs)
        self.target = torch.from_numpy(self.naive.target)

    def name(self, origin: int) -> str:
        """Vertex of a node: a step is one operation, and captures leave out what the output does not read."""
        self.network.prepare(*self.inputs)
        operations = [v.name for v in self.network.graph.role(Role.OPERATION)]
        live = [n for n in self.naive.origin if n is not None and n >= self.count]
        assert len(operations) == len(live)
        return operations[live.index(origin)]

    def simulate(self, rule: pcgraph.Rule, **options: Any) -> pcgraph.Trace:
        return self.network.simulate(*self.inputs, target=self.target, rule=rule, options=options)

    def compare(self, trace: pcgraph.Trace, values: Any, errors: Any, gradients: Any) -> None:
        for n in self.naive.hidden:
            origin = self.naive.origin[n]
            if origin is not None:
                close(trace.final_values[self.name(origin)], values[n])
                if errors is not None:
                    close(trace.update_errors[self.name(origin)], errors[n])
        self.compare_gradients(trace, gradients)

    def compare_gradients(self, trace: pcgraph.Trace, gradients: Any) -> None:
        for name, gradient in gradients.items():
            found = trace.gradients.get(f"weights.{name}")
            if found is None:
                assert not gradient.any()
            else:
                close(found, gradient)


def close(found: Tensor, wanted: Any) -> None:
    size = max(1.0, float(np.abs(wanted).max()))
    assert np.abs(found.numpy() - wanted).max() / size < CLOSE


@pytest.fixture(params=range(len(MAKERS)), ids=lambda seed: f"{MAKERS[seed].__name__}{seed}")
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


@pytest.mark.parametrize("coordinates", ["x", "error"])
def test_il(pair: Pair, coordinates: str) -> None:
    trace = pair.simulate(pcgraph.IL(gamma=0.1, steps=30), coordinates=coordinates)
    pair.compare(trace, *pair.naive.il(0.1, 30))


def test_il_unlevelled(pair: Pair) -> None:
    naive = Naive(pair.naive.weights, pair.naive.inputs, pair.naive.target).build(pair.steps, levelled=False)
    pair.naive = naive
    pair.compare(pair.simulate(pcgraph.IL(gamma=0.1, steps=30), levelled=False), *naive.il(0.1, 30))


def test_fixed_prediction(pair: Pair) -> None:
    pair.compare(pair.simulate(pcgraph.FixedPrediction(gamma=0.3, steps=12)), *pair.naive.fixed(0.3, 12))


def test_incremental(pair: Pair) -> None:
    before = copy.deepcopy(pair.module.state_dict())
    trace = pair.simulate(pcgraph.IncrementalPC(gamma=0.1, steps=15, rate=0.01))
    values, _, gradients = pair.naive.incremental(0.1, 15, 0.01)
    pair.compare(trace, values, None, gradients)
    assert all(torch.equal(before[name], tensor) for name, tensor in pair.module.state_dict().items())


def test_error_coordinates(pair: Pair) -> None:
    pair.compare(pair.simulate(pcgraph.ErrorPC(gamma=0.1, steps=20)), *pair.naive.error_coordinates(0.1, 20))


def test_zil(pair: Pair) -> None:
    pair.compare_gradients(pair.simulate(pcgraph.ZIL()), pair.naive.zil())


def test_precision(pair: Pair) -> None:
    live = [n for n in pair.naive.hidden if pair.naive.origin[n] is not None]
    for k, n in enumerate(live):
        origin = pair.naive.origin[n]
        assert origin is not None
        pair.naive.precision[origin] = (0.5, 1.0, 2.0)[k % 3]
    energies = {pair.name(origin): value for origin, value in pair.naive.precision.items()}
    trace = pair.simulate(pcgraph.IL(gamma=0.1, steps=30), energies=energies)
    pair.compare(trace, *pair.naive.il(0.1, 30))


def test_clamped_hidden_values(pair: Pair) -> None:
    live = [origin for n in pair.naive.hidden if (origin := pair.naive.origin[n]) is not None]
    held = live[len(live) // 2]
    value = np.full((3, 4), 0.25)
    pair.naive.clamped[held] = value
    trace = pair.simulate(pcgraph.IL(gamma=0.1, steps=30), clamp={pair.name(held): torch.from_numpy(value)})
    pair.compare(trace, *pair.naive.il(0.1, 30))


def test_learn_fills_gradients_by_every_rule(pair: Pair) -> None:
    def squared(output: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(output, target, reduction="sum") / 2

    inputs: Any = pair.inputs if len(pair.inputs) > 1 else pair.inputs[0]
    for rule, gradients in (
        (pcgraph.IL(gamma=0.1, steps=20), pair.naive.il(0.1, 20)[2]),
        (pcgraph.IL(gamma=0.1, steps=20, tolerance=1e-300), pair.naive.il(0.1, 20)[2]),
        (pcgraph.FixedPrediction(gamma=0.3, steps=12), pair.naive.fixed(0.3, 12)[2]),
        (pcgraph.ErrorPC(gamma=0.1, steps=20), pair.naive.error_coordinates(0.1, 20)[2]),
    ):
        pair.module.zero_grad()
        pair.network.learn(inputs, pair.target, squared, rule)
        for name, gradient in gradients.items():
            found = pair.module.weights[name].grad
            if found is None:
                assert not gradient.any()
            else:
                close(found, gradient)
    pair.module.zero_grad()
    pair.network.learn(inputs, pair.target, squared, pcgraph.IncrementalPC(gamma=0.1, steps=15, rate=0.01))
    pair.naive.incremental(0.1, 15, 0.01)
    for name, weight in pair.naive.weights.items():
        close(pair.module.weights[name].detach(), weight)
        assert pair.module.weights[name].grad is None
