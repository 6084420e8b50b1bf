"""The simulation against backprop: equal where theory says so, unequal where a condition of Z-IL is dropped.

Everything is float64. The graphs are made by hand and at random; the reference is torch.autograd on the same DAG.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pcgraph.dynamics import IL, ZIL, Trace, simulate
from pcgraph.errors import GraphError, PCGraphError
from pcgraph.graph import Operation, PCGraph, Ref, Role, Slot, TensorSpec, Vertex

Loss = Callable[[list[Tensor]], Tensor]
EXACT = 1e-10  # relative, float64


class Net:
    """A PCGraph under construction, with the values of its leaves; operations are evaluated to learn their specs."""

    def __init__(self, seed: int = 0) -> None:
        self.vertices: list[Vertex] = []
        self.values: dict[str, Tensor] = {}
        self.tensors: dict[Ref, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def leaf(self, role: Role, value: Tensor, grad: bool = False) -> Ref:
        name = f"{role.value}{len(self.vertices)}"
        self.values[name] = value
        ref = Ref(name)
        self.tensors[ref] = value.detach().clone().requires_grad_(grad)
        path = name if role in (Role.PARAMETER, Role.STATE) else ""
        self.vertices.append(Vertex(name, role, (TensorSpec.of(self.tensors[ref]),), module_path=path))
        return ref

    def input(self, *shape: int, grad: bool = False) -> Ref:
        return self.leaf(Role.INPUT, self.randn(*shape), grad)

    def parameter(self, *shape: int, scale: float = 0.5) -> Ref:
        return self.leaf(Role.PARAMETER, scale * self.randn(*shape), True)

    def state(self, value: Tensor) -> Ref:
        return self.leaf(Role.STATE, value)

    def op(self, target: Callable[..., Any], *args: Any, writes: tuple[int, ...] = (), random: bool = False) -> Ref:
        """Append a vertex; `Ref`s among `args` become operands (writes: their indices)."""
        operands = tuple(arg for arg in args if isinstance(arg, Ref))
        slots = iter(range(len(operands)))
        template = tuple(Slot(next(slots)) if isinstance(arg, Ref) else arg for arg in args)
        operation = Operation(getattr(target, "__name__", "op"), target, template, (), writes, random)
        result = operation(
            *(self.tensors[r].clone() if k in writes else self.tensors[r] for k, r in enumerate(operands))
        )
        multi = isinstance(result, tuple | list)
        outputs = tuple(result) if multi else (result,)
        name = f"v{len(self.vertices)}_{operation.name}"
        specs = tuple(TensorSpec.of(tensor) for tensor in outputs)
        self.vertices.append(Vertex(name, Role.OPERATION, specs, operands, operation, multi))
        self.tensors.update({Ref(name, k): tensor for k, tensor in enumerate(outputs)})
        return Ref(name)

    def graph(self, *outputs: Ref) -> PCGraph:
        return PCGraph(self.vertices, outputs)

    def squared_loss(self, outputs: tuple[Ref, ...]) -> Loss:
        targets = [self.randn(*self.tensors[ref].shape) for ref in outputs]
        return lambda found: torch.stack(
            [F.mse_loss(mu, y, reduction="sum") / 2 for mu, y in zip(found, targets, strict=True)]
        ).sum()


def backprop(graph: PCGraph, values: dict[str, Tensor], loss: Loss) -> dict[Ref, Tensor]:
    """``dL/dvalue`` of every value with an error, by torch.autograd on the whole DAG."""
    env: dict[Ref, Tensor] = {}
    for vertex in graph.vertices.values():
        if vertex.operation is not None:
            operands = [
                env[r].clone() if k in vertex.operation.writes else env[r] for k, r in enumerate(vertex.operands)
            ]
            result = vertex.operation(*operands)
            env.update({Ref(vertex.name, k): t for k, t in enumerate(result if vertex.multi else (result,))})
        elif vertex.role is Role.RELAY:
            env[Ref(vertex.name)] = env[vertex.operands[0]].view_as(env[vertex.operands[0]])
        else:
            env[Ref(vertex.name)] = values[vertex.name].detach().clone().requires_grad_(vertex.differentiable)
    carrying = [ref for ref in env if graph.carries_error(ref)]
    slopes = torch.autograd.grad(
        loss([env[ref] for ref in graph.outputs]), [env[ref] for ref in carrying], allow_unused=True
    )
    return {ref: slope for ref, slope in zip(carrying, slopes, strict=True) if slope is not None}


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest entry wanted."""
    size = wanted.abs().max().item()
    difference = (found - wanted).abs().max().item()
    return difference / size if size else difference


def gradient_gap(trace: Trace, graph: PCGraph, values: dict[str, Tensor], loss: Loss) -> float:
    """Largest gap over the parameters."""
    wanted = {r.vertex: g for r, g in backprop(graph, values, loss).items() if graph[r.vertex].role is Role.PARAMETER}
    assert set(trace.gradients) == set(wanted)
    return max((gap(trace.gradients[name], slope) for name, slope in wanted.items()), default=0.0)


def error_gap(trace: Trace, values: dict[str, Tensor], loss: Loss, gamma: float = 1.0) -> float:
    """Largest gap of ``eps_v(d_v)`` from ``-gamma^{d_v} dL/dmu_v``, over every vertex, relays included."""
    wanted = {
        r: g for r, g in backprop(trace.graph, values, loss).items() if trace.graph[r.vertex].role is not Role.PARAMETER
    }
    assert {r.vertex for r in wanted} == {n for n in trace.depth if trace.graph[n].role is not Role.PARAMETER}
    times = {ref: trace.depth[ref.vertex] for ref in wanted}
    return max(gap(trace.error(ref, times[ref]), -(gamma ** times[ref]) * slope) for ref, slope in wanted.items())


def mean_sum(a: Tensor, b: Tensor) -> Tensor:
    return 0.7 * (a + b)


def side_by_side(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat((a, b), 1)


def positive(x: Tensor) -> Tensor:
    return x.detach() > 0


def random_net(seed: int) -> tuple[Net, tuple[Ref, ...]]:
    """5 to 40 vertices on [3, 4] tensors: long skips, x * x, shared weights, chunks, masks, several outputs."""
    choose, net = random.Random(seed), Net(seed)
    inputs = [net.input(3, 4, grad=choose.random() < 0.5) for _ in range(choose.randint(1, 2))]
    weights, bias = [net.parameter(4, 4) for _ in range(choose.randint(1, 3))], net.parameter(4)
    pool, halves = [*inputs, net.op(F.linear, inputs[0], weights[0], bias)], []
    for _ in range(choose.randint(3, 24)):
        near, far = pool[-1] if choose.random() < 0.6 else choose.choice(pool), choose.choice(pool)
        kind = choose.choice(("square", "linear", "chunk", "cat", "mask", "gate", "bias", "sum", "sum"))
        if kind == "square":
            pool.append(net.op(torch.tanh, net.op(torch.mul, near, near)))
        elif kind == "linear":
            pool.append(net.op(F.linear, near, choose.choice(weights), bias))
        elif kind == "chunk":
            chunk = net.op(torch.chunk, near, 2, 1)
            halves += [chunk, Ref(chunk.vertex, 1)]
        elif kind == "cat" and halves:
            pool.append(net.op(side_by_side, choose.choice(halves), choose.choice(halves)))
        elif kind == "mask":
            pool.append(net.op(torch.where, net.op(positive, near), near, far))
        elif kind == "gate":
            pool.append(net.op(torch.mul, net.op(torch.sin, near), far))
        elif kind == "bias":
            pool.append(net.op(torch.add, near, bias))
        else:
            pool.append(net.op(mean_sum, near, far))
    learned = [ref for ref in (*halves, *pool) if net.tensors[ref].grad_fn is not None]
    return net, (learned[-1], *choose.sample(learned, min(choose.randint(0, 2), len(learned))))


def skip_net() -> tuple[Net, PCGraph, Loss]:
    """Five layers, a skip over two of them and one over three: the fixed example of the ablations. T = 6."""
    net = Net(seed=3)
    x = net.input(5, 4)
    h1 = net.op(torch.tanh, net.op(F.linear, x, net.parameter(4, 4)))
    h2 = net.op(torch.tanh, net.op(F.linear, h1, net.parameter(4, 4)))
    h3 = net.op(torch.mul, net.op(F.linear, h2, net.parameter(4, 4)), h1)
    y = net.op(mean_sum, net.op(torch.tanh, h3), h1)
    return net, net.graph(y), net.squared_loss((y,))


def chain_net() -> tuple[Net, PCGraph, Loss]:
    """Three tanh layers without skips, so that only the schedule and the start can be wrong."""
    net = Net(seed=4)
    h = net.input(5, 4)
    for _ in range(3):
        h = net.op(torch.tanh, net.op(F.linear, h, net.parameter(4, 4)))
    return net, net.graph(h), net.squared_loss((h,))


# -- (1) exact on levelled graphs ----------------------------------------------------------------
SEEDS = range(64)


@pytest.mark.parametrize("coordinates", ["x", "error"])
@pytest.mark.parametrize("seed", SEEDS)
def test_errors_and_gradients_equal_backprop(seed: int, coordinates: str) -> None:
    net, outputs = random_net(seed)
    graph, loss = net.graph(*outputs), net.squared_loss(outputs)
    trace = simulate(graph, net.values, loss=loss, rule=ZIL(), coordinates=coordinates)
    assert error_gap(trace, net.values, loss) < EXACT
    assert gradient_gap(trace, graph, net.values, loss) < EXACT
    for name, slope in trace.input_gradients.items():
        assert gap(slope, backprop(graph, net.values, loss)[Ref(name)]) < EXACT


def test_the_random_graphs_are_hard_enough() -> None:
    graphs = [net.graph(*outputs) for net, outputs in map(random_net, SEEDS)]
    summaries = [graph.summary() for graph in graphs]
    assert sum(s["relays"] > 5 for s in summaries) > 25
    assert sum(s["non_differentiable"] > 0 for s in summaries) > 20
    assert sum(any(v.multi for v in graph.vertices.values()) for graph in graphs) > 20
    assert sum(len({graph.depth[ref.vertex] for ref in graph.outputs}) > 1 for graph in graphs) > 20
    assert sum(len(graph.parameter_uses) > len(graph.role(Role.PARAMETER)) for graph in graphs) > 20
    assert sum(any(len(set(v.operands)) < len(v.operands) for v in graph.vertices.values()) for graph in graphs) > 20
    assert max(s["steps"] for s in summaries) > 12


def test_a_loss_that_mixes_outputs_of_different_depths() -> None:
    net = Net()
    h = net.op(torch.tanh, net.op(F.linear, net.input(3, 4), net.parameter(4, 4)))
    y = net.op(torch.sin, net.op(torch.tanh, net.op(F.linear, h, net.parameter(4, 4))))
    graph = net.graph(h, y, h)

    def loss(outputs: list[Tensor]) -> Tensor:
        return (outputs[0] * outputs[1] * outputs[2]).sum().exp()

    trace = simulate(graph, net.values, loss=loss, rule=ZIL())
    assert trace.graph.depth["v3_tanh"] == 3
    assert error_gap(trace, net.values, loss) < EXACT
    assert gradient_gap(trace, graph, net.values, loss) < EXACT


def test_leaves_that_are_outputs() -> None:
    net = Net()
    x, weight, lonely = net.input(3, 4, grad=True), net.parameter(4, 4), net.parameter(2)
    y = net.op(torch.tanh, net.op(F.linear, x, weight))
    outputs = (y, x, weight, lonely)
    graph, loss = net.graph(*outputs), net.squared_loss(outputs)
    trace = simulate(graph, net.values, loss=loss, rule=ZIL())
    wanted = backprop(graph, net.values, loss)
    assert gradient_gap(trace, graph, net.values, loss) < EXACT
    assert gap(trace.input_gradients[x.vertex], wanted[x]) < EXACT
    assert all(torch.equal(a, net.tensors[b]) for a, b in zip(trace.outputs, outputs, strict=True))


def test_a_dead_end_sends_no_error() -> None:
    """A vertex that reaches no output shares a parent with a deep one; were it simulated, it would disturb it."""
    net = Net()
    deep = net.op(torch.tanh, net.op(F.linear, net.input(3, 4), net.parameter(4, 4)))
    y = deep
    for _ in range(4):
        y = net.op(torch.sin, y)
    net.op(torch.mul, deep, y)
    graph, loss = net.graph(y), net.squared_loss((y,))
    trace = simulate(graph, net.values, loss=loss, rule=ZIL())
    assert not any("mul" in name for name in trace.depth)
    assert error_gap(trace, net.values, loss) < EXACT


def test_outputs_without_error_are_held() -> None:
    """The values of torch.max carry an error, its indices do not, and a gather reads both."""
    net = Net()
    h = net.op(F.linear, net.input(3, 4), net.parameter(4, 4))
    best = net.op(torch.max, h, 1, True)
    y = net.op(torch.mul, net.op(torch.gather, net.op(torch.sin, h), 1, Ref(best.vertex, 1)), best)
    graph, loss = net.graph(y, Ref(best.vertex, 1)), net.squared_loss((y,))

    def first(outputs: list[Tensor]) -> Tensor:
        return loss(outputs[:1])

    trace = simulate(graph, net.values, loss=first, rule=ZIL())
    assert torch.equal(trace.outputs[1], net.tensors[Ref(best.vertex, 1)])
    assert error_gap(trace, net.values, first) < EXACT
    assert gradient_gap(trace, graph, net.values, first) < EXACT


# -- (2) each condition is needed ----------------------------------------------------------------
@pytest.mark.parametrize("coordinates", ["x", "error"])
def test_exact_on_the_examples_of_the_ablations(coordinates: str) -> None:
    for net, graph, loss in (skip_net(), chain_net()):
        trace = simulate(graph, net.values, loss=loss, rule=ZIL(), coordinates=coordinates)
        assert gradient_gap(trace, graph, net.values, loss) < EXACT


@pytest.mark.parametrize("coordinates", ["x", "error"])
@pytest.mark.parametrize(
    ("ablation", "make"),
    [
        ({"levelled": False}, skip_net),
        ({"rule": ZIL(update="end")}, chain_net),
        ({"rule": ZIL(gamma=0.5)}, chain_net),
        ({"initial_error": 1e-3}, chain_net),
    ],
    ids=["unlevelled", "update at the end", "gamma", "initial error"],
)
def test_ablations_fail(
    ablation: dict[str, Any], make: Callable[[], tuple[Net, PCGraph, Loss]], coordinates: str
) -> None:
    net, graph, loss = make()
    assert graph.steps > 0
    options = {"rule": ZIL(), "record": ("errors",), **ablation}
    trace = simulate(graph, net.values, loss=loss, coordinates=coordinates, **options)
    assert gradient_gap(trace, graph, net.values, loss) > 1e-6
    if trace.rule == ZIL(update="end"):  # the errors pass by at the right time, but nobody learns from them then
        assert error_gap(trace, net.values, loss) < EXACT
    else:
        assert error_gap(trace, net.values, loss) > 1e-6


def test_an_output_with_readers_needs_levelling_too() -> None:
    net = Net()
    h = net.op(F.linear, net.input(3, 4), net.parameter(4, 4))
    y = net.op(torch.tanh, net.op(torch.sin, h))
    graph, loss = net.graph(y, h), net.squared_loss((y, h))
    exact, early = (simulate(graph, net.values, loss=loss, rule=ZIL(), levelled=flag) for flag in (True, False))
    assert gradient_gap(exact, graph, net.values, loss) < EXACT
    assert gradient_gap(early, graph, net.values, loss) > 1e-6


# -- (3) appendix F --------------------------------------------------------------------------------
@pytest.mark.parametrize("coordinates", ["x", "error"])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.3])
@pytest.mark.parametrize("seed", range(8))
def test_gamma_scales_the_error_by_its_power_of_depth(seed: int, gamma: float, coordinates: str) -> None:
    net, outputs = random_net(seed)
    graph, loss = net.graph(*outputs), net.squared_loss(outputs)
    trace = simulate(graph, net.values, loss=loss, rule=ZIL(gamma=gamma), coordinates=coordinates)
    assert error_gap(trace, net.values, loss, gamma) < EXACT


def test_gamma_is_a_learning_rate_per_use() -> None:
    """A weight that is used at depths 0 and 1 gets gamma^0 of one contribution and gamma^1 of the other."""
    net = Net()
    x, weight = net.input(3, 4), net.parameter(4, 4)
    y = net.op(F.linear, net.op(F.linear, x, weight), weight)
    graph, loss = net.graph(y), net.squared_loss((y,))
    trace = simulate(graph, net.values, loss=loss, rule=ZIL(gamma=0.5))
    inner, outer = (net.values[weight.vertex].clone().requires_grad_() for _ in range(2))
    slopes = torch.autograd.grad(loss([F.linear(F.linear(net.values[x.vertex], inner), outer)]), [inner, outer])
    assert gap(trace.gradients[weight.vertex], 0.5 * slopes[0] + slopes[1]) < EXACT


# -- (4) by hand -----------------------------------------------------------------------------------
def scalar_net(weights: tuple[float, ...], x: float) -> tuple[Net, PCGraph, list[Ref]]:
    """``mu_1 = w_1 x, mu_2 = w_2 x_1, ...``"""
    net = Net()
    h = net.leaf(Role.INPUT, torch.tensor([x], dtype=torch.float64))
    hidden = []
    for w in weights:
        h = net.op(torch.mul, h, net.leaf(Role.PARAMETER, torch.tensor([w], dtype=torch.float64), True))
        hidden.append(h)
    return net, net.graph(h), hidden


def half_square(target: float) -> Loss:
    return lambda outputs: 0.5 * (target - outputs[0]).square().sum()


def test_energy_of_one_layer_by_hand() -> None:
    net, graph, (y,) = scalar_net((2.0,), x=3.0)
    trace = simulate(graph, net.values, loss=half_square(10.0), rule=ZIL(), record=("energies", "errors", "values"))
    assert trace.steps == 0
    assert trace.energies == trace.losses == [8.0]  # 1/2 (10 - 6)^2
    assert trace.error(y, 0).item() == 4.0  # y - mu
    assert trace.values[y.vertex][0].item() == 10.0  # clamped to the target
    assert trace.gradients["parameter1"].item() == -12.0  # -eps x
    assert trace.active == [1]


@pytest.mark.parametrize("coordinates", ["x", "error"])
def test_two_layers_by_hand(coordinates: str) -> None:
    net, graph, (h, y) = scalar_net((2.0, 0.5), x=1.0)  # x_1 = mu_1 = 2, mu_2 = 1
    trace = simulate(
        graph,
        net.values,
        loss=half_square(3.0),
        rule=IL(gamma=0.5, steps=2),
        coordinates=coordinates,
        record=("energies", "errors", "values"),
    )
    # t = 0: eps_2 = 2, dx_1 = 0.5 * 0.5 * 2 = 0.5. t = 1: eps_1 = 0.5, mu_2 = 1.25, eps_2 = 1.75,
    # dx_1 = 0.5 * (-0.5 + 0.875) = 0.1875. t = 2: eps_1 = 0.6875, mu_2 = 1.34375, eps_2 = 1.65625.
    assert [e.item() for e in trace.errors[h.vertex]] == [0.0, 0.5, 0.6875]
    assert [e.item() for e in trace.errors[y.vertex]] == [2.0, 1.75, 1.65625]
    assert [e.item() for e in trace.values[h.vertex]] == [2.0, 2.5, 2.6875]
    assert trace.vertex_energies == {h.vertex: [0.0, 0.125, 0.6875**2 / 2]}
    assert trace.energies == [2.0, 0.125 + 1.75**2 / 2, 0.6875**2 / 2 + 1.65625**2 / 2]
    assert trace.gradients["parameter1"].item() == -0.6875 * 1.0
    assert trace.gradients["parameter3"].item() == -1.65625 * 2.6875


# -- (5) vertices with state and with random numbers -------------------------------------------------
def noisy_net() -> tuple[Net, PCGraph, Loss]:
    net = Net(seed=5)
    h = net.op(F.linear, net.input(6, 4), net.parameter(4, 4))
    mean, var = net.state(torch.zeros(4, dtype=torch.float64)), net.state(torch.ones(4, dtype=torch.float64))
    count = net.state(torch.tensor(0))
    net.op(torch.Tensor.add_, count, 1, writes=(0,))
    h = net.op(F.batch_norm, h, mean, var, net.parameter(4), net.parameter(4), True, 0.1, 1e-5, writes=(1, 2))
    h = net.op(torch.tanh, net.op(F.dropout, h, 0.4, True, random=True))
    shift = net.op(torch.add, mean, 1.0)  # read after the write: as the model, sees the new running mean
    h = net.op(torch.mul, net.op(F.linear, h, net.parameter(4, 4)), shift)
    y = net.op(F.dropout, h, 0.4, True, random=True)
    return net, net.graph(y), net.squared_loss((y,))


@pytest.mark.parametrize("coordinates", ["x", "error"])
def test_dropout_and_batch_norm(coordinates: str) -> None:
    net, graph, loss = noisy_net()
    before = {name: value.clone() for name, value in net.values.items()}

    torch.manual_seed(11)
    trace = simulate(graph, net.values, loss=loss, rule=ZIL(), coordinates=coordinates)
    after_simulation = torch.get_rng_state()

    x, w1, mean, var, _, scale, bias, w2 = (value.clone() for value in before.values())
    leaves = [t.requires_grad_() for t in (w1, scale, bias, w2)]
    torch.manual_seed(11)
    h = F.batch_norm(F.linear(x, w1), mean, var, scale, bias, True, 0.1, 1e-5)
    h = torch.tanh(F.dropout(h, 0.4, True))
    y = F.dropout(F.linear(h, w2) * (mean + 1.0), 0.4, True)
    wanted = torch.autograd.grad(loss([y]), leaves)

    assert graph.steps == 6
    assert torch.equal(trace.outputs[0], y.detach())
    for slope, expected in zip(trace.gradients.values(), wanted, strict=True):
        assert gap(slope, expected) < EXACT
    assert torch.equal(after_simulation, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.values.items())


def scale_and_count(x: Tensor, count: Tensor) -> Tensor:
    """Changes its own operand: evaluated again on the changed one, it would predict something else."""
    count.add_(1.0)
    return x * count


def test_state_is_read_as_the_model_read_it() -> None:
    net = Net()
    x, weight, count = net.input(3, 4), net.parameter(4, 4), net.state(torch.ones(1, dtype=torch.float64))
    h = net.op(torch.mul, net.op(F.linear, x, weight), count)  # before the first write: 1
    h = net.op(scale_and_count, h, count, writes=(1,))  # 2
    h = net.op(torch.tanh, net.op(scale_and_count, h, count, writes=(1,)))  # 3
    y = net.op(torch.mul, h, count)
    graph, loss = net.graph(y), net.squared_loss((y,))
    trace = simulate(graph, net.values, loss=loss, rule=ZIL())
    leaf = net.values[weight.vertex].clone().requires_grad_()
    output = torch.tanh(F.linear(net.values[x.vertex], leaf) * 1.0 * 2.0 * 3.0) * 3.0
    assert torch.equal(trace.outputs[0], output.detach())
    assert gap(trace.gradients[weight.vertex], torch.autograd.grad(loss([output]), leaf)[0]) < EXACT
    assert net.values[count.vertex].item() == 1.0


def test_an_explicit_generator_is_consumed_once() -> None:
    net = Net()
    generator, twin = (torch.Generator().manual_seed(1) for _ in range(2))

    def noise(x: Tensor, source: torch.Generator) -> Tensor:
        return x * torch.rand(x.shape, generator=source, dtype=x.dtype)

    h = net.op(noise, net.op(F.linear, net.input(3, 4), net.parameter(4, 4)), generator, random=True)
    y = net.op(torch.tanh, net.op(torch.sin, h))
    graph, loss = net.graph(y), net.squared_loss((y,))
    generator.manual_seed(1)
    trace = simulate(graph, net.values, loss=loss, rule=ZIL())
    x, weight = (value.clone().requires_grad_() for value in net.values.values())
    wanted = torch.autograd.grad(loss([torch.tanh(torch.sin(noise(F.linear(x, weight), twin)))]), weight)
    assert gap(trace.gradients["parameter1"], wanted[0]) < EXACT
    assert torch.equal(generator.get_state(), twin.get_state())


# -- (6) inference learning ------------------------------------------------------------------------
@pytest.mark.parametrize("coordinates", ["x", "error"])
def test_inference_learning_never_raises_the_energy(coordinates: str) -> None:
    net, graph, loss = skip_net()
    trace = simulate(graph, net.values, loss=loss, rule=IL(gamma=0.05, steps=100), coordinates=coordinates)
    assert all(after <= before for before, after in zip(trace.energies, trace.energies[1:], strict=False))
    assert trace.energies[-1] < 0.5 * trace.energies[0]
    assert trace.losses[0] == trace.energies[0]


def test_coordinates_describe_the_same_movement() -> None:
    net, graph, loss = skip_net()
    by_value, by_error = (
        simulate(graph, net.values, loss=loss, rule=IL(0.1, 20), coordinates=c, initial_error=0.1, record=("errors",))
        for c in ("x", "error")
    )
    assert by_value.errors.keys() == by_error.errors.keys()
    for name, errors in by_value.errors.items():
        assert len(errors) == 21
        assert max(gap(a, b) for a, b in zip(errors, by_error.errors[name], strict=True)) < EXACT


def test_error_coordinates_keep_small_errors() -> None:
    """float32, errors of 1e-6 beside predictions of 1: a difference loses their digits, a state does not."""
    net, graph, loss = chain_net()
    values = {name: value.float() for name, value in net.values.items()}

    def tiny(outputs: list[Tensor]) -> Tensor:
        return 1e-6 * loss(outputs)

    by_value, by_error = (simulate(graph, values, loss=tiny, rule=ZIL(), coordinates=c) for c in ("x", "error"))
    assert error_gap(by_error, values, tiny) < 1e-6
    assert error_gap(by_value, values, tiny) > 1e-3


# -- starts, records and messages ------------------------------------------------------------------
def test_initial_errors_start_where_they_are_told() -> None:
    net, graph, loss = chain_net()
    trace = simulate(
        graph, net.values, loss=loss, rule=ZIL(), initial_error=1e-3, coordinates="error", record=["errors"]
    )
    hidden = [name for name, depth in trace.depth.items() if depth and trace.graph[name].role is Role.OPERATION]
    assert len(hidden) == 5
    for name in hidden:
        assert set(trace.error(name, 0).flatten().tolist()) == {1e-3, -1e-3}
    again = simulate(
        graph, net.values, loss=loss, rule=ZIL(), initial_error=1e-3, seed=1, coordinates="error", record=["errors"]
    )
    assert any(not torch.equal(again.error(name, 0), trace.error(name, 0)) for name in hidden)

    one = simulate(
        graph,
        net.values,
        loss=loss,
        rule=ZIL(),
        initial_error={hidden[2]: 0.25},
        coordinates="error",
        record=["errors"],
    )
    assert one.active[0] == 2  # the displaced vertex and the output
    assert set(one.error(hidden[2], 0).flatten().tolist()) == {0.25}


def test_the_front_moves_one_level_a_step() -> None:
    net, graph, loss = skip_net()
    trace = simulate(graph, net.values, loss=loss, rule=ZIL(), record=("errors",))
    for name, errors in trace.errors.items():
        assert [bool(error.any()) for error in errors[: trace.depth[name] + 1]] == [False] * trace.depth[name] + [True]


def test_progress_and_printing() -> None:
    net, graph, loss = skip_net()
    seen: list[tuple[int, int]] = []
    trace = simulate(graph, net.values, loss=loss, rule=ZIL(), progress=lambda t, steps: seen.append((t, steps)))
    assert seen == [(t, graph.steps) for t in range(graph.steps + 1)]
    head, titles, *rows = str(trace).splitlines()
    assert (
        head
        == f"ZIL(gamma=1.0, update='depth'), x coordinates: T={graph.steps}, {len(trace.update_errors)} error nodes"
    )
    assert titles.split() == ["t", "energy", "loss", "active"]
    assert [int(row.split()[0]) for row in rows] == list(range(graph.steps + 1))
    long = simulate(graph, net.values, loss=loss, rule=IL(steps=100))
    assert [row.split()[0] for row in str(long).splitlines()[-4:]] == ["9", "...", "99", "100"]


def test_only_what_was_asked_for_is_kept() -> None:
    net, graph, loss = chain_net()
    trace = simulate(graph, net.values, loss=loss, rule=ZIL())
    assert (trace.errors, trace.values, trace.vertex_energies) == ({}, {}, {})
    name = max(trace.update_errors, key=lambda name: trace.depth[name])
    assert trace.error(name, trace.depth[name]) is trace.update_errors[name]
    with pytest.raises(PCGraphError, match="was not kept"):
        trace.error(name, trace.depth[name] - 1)
    with pytest.raises(PCGraphError, match="no error node"):
        trace.error("nobody", 0)
    with pytest.raises(PCGraphError, match="no step 99"):
        trace.error(name, 99)


def test_wrong_arguments_are_named() -> None:
    net, graph, loss = chain_net()
    some = dict(list(net.values.items())[1:])
    with pytest.raises(PCGraphError, match="missing input0"):
        simulate(graph, some, loss=loss, rule=ZIL())
    with pytest.raises(PCGraphError, match="unknown more"):
        simulate(graph, {**net.values, "more": torch.zeros(1)}, loss=loss, rule=ZIL())
    with pytest.raises(PCGraphError, match="not a scalar"):
        simulate(graph, net.values, loss=lambda outputs: outputs[0], rule=ZIL())
    with pytest.raises(PCGraphError, match="coordinates='y'"):
        simulate(graph, net.values, loss=loss, rule=ZIL(), coordinates="y")
    with pytest.raises(PCGraphError, match="record"):
        simulate(graph, net.values, loss=loss, rule=ZIL(), record=("everything",))
    with pytest.raises(PCGraphError, match="no hidden values"):
        simulate(graph, net.values, loss=loss, rule=ZIL(), initial_error={"input0": 1.0})
    with pytest.raises(PCGraphError, match="gamma=0"):
        ZIL(gamma=0)
    with pytest.raises(PCGraphError, match="cannot be evaluated at step 0"):
        simulate(graph, {**net.values, "input0": torch.zeros(5, 7)}, loss=loss, rule=ZIL())


def test_nothing_to_learn_is_an_error() -> None:
    net = Net()
    y = net.op(torch.tanh, net.input(3, 4))
    with pytest.raises(PCGraphError, match="no output carries an error"):
        simulate(net.graph(y), net.values, loss=net.squared_loss((y,)), rule=ZIL())


def test_writing_a_value_with_an_error_is_refused() -> None:
    net = Net()
    h = net.op(F.linear, net.input(3, 4), net.parameter(4, 4))
    y = net.op(torch.relu_, h, writes=(0,))
    with pytest.raises(GraphError, match="writes a value that carries an error"):
        simulate(net.graph(y), net.values, loss=net.squared_loss((y,)), rule=ZIL())
