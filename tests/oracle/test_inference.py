"""Inference learning, compiled, against the full simulation: every value, error, loss and gradient, in float64.

At gamma = 1/8 both round alike, since the product with gamma is exact there: the compiled program multiplies and adds
in one rounding. At other gammas they differ by that rounding.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

import pcgraph
from pcgraph.codegen import Inference
from pcgraph.codegen.inductor import cell
from pcgraph.codegen.program import PROGRAMS
from pcgraph.runtime.inference import inference_of
from pcgraph.schedule import schedule
from tests.property.dags import Recipe, recipes
from tests.zoo import ZOO, Case


def without_compiler(patch: pytest.MonkeyPatch) -> None:
    """Under the back end inductor no kernel is compiled; its lines run in its place."""

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler")

    patch.setattr(cell, "compiled", fail)
    patch.setattr(cell, "_cells", {})
    patch.setattr(pcgraph.compiler, "_programs", type(pcgraph.compiler._programs)())


LIMIT = 60 * 14  # vertices x steps: a simulation costs that much
FAST = """
mlp_tanh mlp_dropout mlp_layer_norm mlp_batch_norm add_to_a_column assign_slices cube fan_out_of_six lenet cumulative
tied_transposes dictionary_of_outputs gradient_of_inputs input_among_the_outputs module_reused_in_a_loop
causal_attention_by_hand
""".split()
# Here the two pull one error back to two operands in one call and in two, or sum a bias over another layout.
ROUNDS = {"multihead_attention", "nn_gru_without_bias", "nn_lstm_bidirectional", "packed_gru", "perceiver"}


def squared(output: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(output, target, reduction="sum") / 2


Made = Callable[[float, int], pcgraph.Rule]


def compare(
    case: Case,
    gamma: float,
    bitwise: bool,
    backend: str = "eager",
    made: Made = pcgraph.IL,
    value_nodes: str = "operations",
) -> int:
    """Number of value nodes compared; 0 where the model is out of reach of one of the two."""
    if torch.float64 not in case.dtypes:
        return 0
    model, args, kwargs = case.build(torch.float64)
    network = pcgraph.compile(model, backend=backend, value_nodes=value_nodes)
    network.prepare(*args, **kwargs)
    graph, binding = network.graph, network._last().compiled.binding
    if not graph.depth or network.cache_info()["once"] or kwargs or len(graph.depth) > LIMIT // 2:
        return 0
    if binding.held or binding.changed or binding.woken:
        return 0
    steps = min(
        graph.steps + 3, max(2, LIMIT // len(graph.depth))
    )  # errors come all the way where that is not too much
    rule = made(gamma, steps)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    torch.manual_seed(3)
    options = {"record": ("errors", "values"), "coordinates": "x" if made is pcgraph.IL else "error"}
    trace = network.simulate(*args, loss=case.loss, rule=rule, options=options)
    after = torch.get_rng_state()
    network.load_state_dict(state)
    torch.manual_seed(3)
    found = network.infer(args, None, lambda output, _: case.loss(output), rule)
    assert torch.equal(torch.get_rng_state(), after)
    assert set(trace.gradients) == set(found.gradients) and set(trace.input_gradients) == set(found.input_gradients)
    pairs = {f"gradient of {name}": (found.gradients[name], g) for name, g in trace.gradients.items()}
    pairs |= {f"gradient of {name}": (found.input_gradients[name], g) for name, g in trace.input_gradients.items()}
    for name, value in found.values.items():
        pairs[f"value {name}"] = (value, trace.values[name][-1])
        pairs[f"error of {name}"] = (found.errors[name], trace.errors[name][-1])
    pairs["losses"] = (torch.tensor(found.losses), torch.tensor(trace.losses))
    for name, (mine, other) in pairs.items():
        tolerance = {"rtol": 0, "atol": 0} if bitwise else {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(mine, other, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}", **tolerance)
    return len(found.values)


@pytest.mark.parametrize("name", FAST)
def test_equals_the_simulation_to_the_bit(name: str) -> None:
    assert compare(ZOO[name], 0.125, bitwise=True) > 0


@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("name", FAST)
def test_layers_equal_their_simulation(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "inductor":
        without_compiler(monkeypatch)
    assert compare(ZOO[name], 0.125, bitwise=False, backend=backend, value_nodes="layers") > 0


@pytest.mark.parametrize("made", [pcgraph.FixedPrediction, pcgraph.ErrorPC])
@pytest.mark.parametrize("name", FAST)
def test_rules_of_errors_equal_the_simulation(name: str, made: Made) -> None:
    assert compare(ZOO[name], 0.125 / 4, bitwise=False, made=made) > 0


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize("made", [pcgraph.FixedPrediction, pcgraph.ErrorPC])
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(FAST)))
def test_rules_of_errors_equal_the_simulation_on_the_zoo(name: str, made: Made) -> None:
    if not compare(ZOO[name], 0.125 / 4, bitwise=False, made=made):
        pytest.skip("captured anew at every call, keeps tensors, takes keywords, too large, or without float64")


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(FAST)))
def test_layers_equal_their_simulation_on_the_zoo(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "inductor":
        without_compiler(monkeypatch)
    if not compare(ZOO[name], 0.125, bitwise=False, backend=backend, value_nodes="layers"):
        pytest.skip("captured anew at every call, keeps tensors, takes keywords, too large, or without float64")


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(FAST)))
def test_equals_the_simulation_on_the_zoo(name: str) -> None:
    if not compare(ZOO[name], 0.125, bitwise=name not in ROUNDS):
        pytest.skip("captured anew at every call, keeps tensors, takes keywords, too large, or without float64")


@pytest.mark.parametrize("name", ["mlp_tanh", "lenet"])
def test_other_gammas_differ_by_rounding(name: str) -> None:
    assert compare(ZOO[name], 0.1, bitwise=False) > 0


EXAMPLES = int(os.environ.get("PCGRAPH_PROPERTY_EXAMPLES", "15"))


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="PCGRAPH_PROPERTY_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(recipes(vertices=16))
def test_equals_the_simulation_on_random_graphs(recipe: Recipe) -> None:
    compare(recipe.case(), 0.125, bitwise=False)


# -- what lands where ----------------------------------------------------------------------------------
def small(dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).to(dtype), torch.randn(4, 6, dtype=dtype), torch.randn(4, 3, dtype=dtype)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_zil_is_backprop_to_the_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        model, x, y = small(dtype)
        network = pcgraph.compile(model)
        value = network.learn(x, y, squared, pcgraph.ZIL())
        mine = gradients(model)
        model.zero_grad()
        truth = squared(model(x), y)
        truth.backward()
        assert torch.equal(value, truth)
        assert all(torch.equal(mine[name], g) for name, g in gradients(model).items())


def test_gradients_are_added_and_an_optimizer_takes_them() -> None:
    model, x, y = small()
    network, rule = pcgraph.compile(model), pcgraph.IL(gamma=0.25, steps=9)
    expected = network.infer(x, y, squared, rule).gradients
    assert not gradients(model)
    network.learn(x, y, squared, rule)
    assert all(torch.equal(g, expected[name]) for name, g in gradients(model).items())
    network.learn(x, y, squared, rule)
    assert all(torch.equal(g, expected[name] + expected[name]) for name, g in gradients(model).items())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(float(network.learn(x, y, squared, rule)))
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_hooks_on_parameters_fire() -> None:
    model, x, y = small()
    seen: list[str] = []
    model[0].weight.register_post_accumulate_grad_hook(lambda p: seen.append("weight"))
    pcgraph.compile(model).learn(x, y, squared, pcgraph.IL(steps=6))
    assert seen == ["weight"]


def test_a_parameter_that_no_error_has_reached_gets_zeros() -> None:
    model, x, y = small()
    pcgraph.compile(model).learn(x, y, squared, pcgraph.IL(gamma=0.5, steps=1))
    found = gradients(model)
    assert found["4.weight"].any() and not found["2.weight"].any() and not found["0.bias"].any()


def test_inference_lowers_the_energy() -> None:
    model, x, y = small()
    network = pcgraph.compile(model)
    found = network.infer(x, y, squared, pcgraph.IL(gamma=0.1, steps=30))
    assert len(found.losses) == 31
    energy = found.losses[-1] + sum(float(e.square().sum()) / 2 for n, e in found.errors.items() if n != "linear_2")
    assert energy < found.losses[0]


def test_a_loss_that_reads_values_is_asked_at_every_step() -> None:
    model, x, y = small()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        value = squared(output, target)
        return value if value > threshold else value * 0.5

    network, rule = pcgraph.compile(model), pcgraph.IL(gamma=0.25, steps=8)
    losses = network.infer(x, y, squared, rule).losses
    threshold = (losses[0] + losses[-1]) / 2
    trace = network.simulate(x, loss=lambda output: loss(output, y), rule=rule)
    network.learn(x, y, loss, rule)
    assert all(torch.equal(g, trace.gradients[name]) for name, g in gradients(model).items())


# -- one program ---------------------------------------------------------------------------------------
def test_nothing_is_compiled_for_another_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = small()
    network = pcgraph.compile(model)
    made: list[Inference] = []
    original = Inference.__init__

    def counted(self: Inference, *args: object, **kwargs: object) -> None:
        made.append(self)
        original(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Inference, "__init__", counted)
    for steps in (0, 1, 3, 7, 50):
        for gamma in (0.1, 0.5):
            network.learn(x, y, squared, pcgraph.IL(gamma=gamma, steps=steps))
    assert len(made) == 1
    assert network.cache_info()["captures"] == 1


def program(model: nn.Module, x: Tensor) -> Inference:
    return inference_of(pcgraph.compile(model, example_inputs=(x,))._last().compiled.program)


@pytest.mark.parametrize("name", [*FAST, "gpt_tied"])
def test_every_line_is_local(name: str) -> None:
    """A vertex reads its own errors and temporaries and the values of its operands; nothing else."""
    model, args, kwargs = ZOO[name].build()
    network = pcgraph.compile(model)
    network.prepare(*args, **kwargs)
    inference = inference_of(network._last().compiled.program)
    graph, values = inference.graph, inference.cells.values
    checked = 0
    for moves in inference.moves.values():
        vertex = graph[moves.vertex]
        errors = {"e" + values[ref][1:] for ref in moves.refs}
        readable = {values[ref] for ref in vertex.operands}
        for line in (*moves.setup, *moves.first, *moves.again):
            assert set(line.reads) <= readable | own(line.reads, vertex.name), line.render()
        for line in (*moves.pull, *moves.learn):
            assert set(line.reads) <= readable | errors | own(line.reads, vertex.name), line.render()
            checked += 1
        assert {ref for ref, _, _ in moves.handed} | {ref for ref, _ in moves.learned} <= set(vertex.operands)
    assert checked


def own(names: tuple[str, ...], vertex: str) -> set[str]:
    """Temporaries of a vertex; values and errors are not among them."""
    return {n for n in names if re.fullmatch(rf"(p?t|y|h|w|r|o)\d*_{re.escape(vertex)}", n)}


def test_inactive_levels_are_left_out() -> None:
    """Within T steps no call is made for a vertex deeper than T."""
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(5, 5), nn.Tanh())]
    model, x, y = nn.Sequential(*layers, nn.Linear(5, 2)), torch.randn(3, 5), torch.randn(3, 2)
    network = pcgraph.compile(model)
    counts = {}
    for steps in (0, 2, 4):
        rule = pcgraph.IL(steps=steps)
        network.learn(x, y, squared, rule)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            network.learn(x, y, squared, rule)
        counts[steps] = sum(e.count for e in profile.key_averages() if e.key in ("aten::mm", "aten::addmm"))
    assert counts[0] == 9 + 1  # the prediction, and the gradient of the last weight
    assert counts[2] == counts[0] + 2 + 2 + 1  # the last layer pulls and predicts twice; one more weight learns
    assert counts[4] == counts[0] + 4 + 4 + 2 + 2 + 2  # and the one below, two steps later


def test_leaving_levels_out_changes_nothing() -> None:
    model, x, y = small()
    compiled = pcgraph.compile(model, example_inputs=(x,))._last().compiled
    graph = inference_of(compiled.program).graph
    found = []
    for skipping in (True, False):
        inference = Inference(schedule(graph, pcgraph.IL()), PROGRAMS, skipping=skipping)
        with torch.no_grad():
            gradients, _ = inference.run(compiled.binding.values([x]), lambda outputs: [outputs[0] - y], 6, 0.125)
        found.append(gradients)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Contrast(nn.Module):
    """Two towers whose outputs meet in two products, one of them by a scale that is deeper than they are."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.scale = nn.Linear(4, 3), nn.Linear(4, 3), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        a, b, scale = F.normalize(self.one(x)), F.normalize(self.two(y)), self.scale.exp()
        pairs = torch.arange(len(x))
        return F.cross_entropy(scale * a @ b.T, pairs) + F.cross_entropy(scale * b @ a.T, pairs)


@pytest.mark.parametrize("steps", range(1, 9))
def test_a_wave_that_comes_to_a_value_in_the_last_step(steps: int) -> None:
    """Of two that hand errors to a value, one has ended by then, and the other still has another value to move."""
    torch.manual_seed(0)
    model, x, y = Contrast().double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    network, rule = pcgraph.compile(model), pcgraph.IL(gamma=0.125, steps=steps)
    network.learn((x, y), None, lambda output, _: output.square(), rule)
    trace = network.simulate(x, y, loss=torch.square, rule=rule)
    for name, parameter in model.named_parameters():
        if name in trace.gradients:
            assert torch.equal(parameter.grad, trace.gradients[name]), name  # type: ignore[arg-type]
    assert trace.gradients


# -- refusals --------------------------------------------------------------------------------------------
def test_rules_without_a_program_run_by_the_simulation() -> None:
    model, x, y = small()
    network, ablation = pcgraph.compile(model), pcgraph.ZIL(gamma=0.5)
    network.learn(x, y, squared, pcgraph.ZIL())
    exact = gradients(model)
    model.zero_grad()
    network.learn(x, y, squared, ablation)
    wanted = network.simulate(x, target=y, rule=ablation).gradients
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12)
    # Appendix F: the error at depth d is gamma^d times backprop's; the layers lie at 0, 2 and 4.
    for layer, scale in (("4", 1.0), ("2", 0.25), ("0", 0.0625)):
        torch.testing.assert_close(wanted[f"{layer}.weight"], scale * exact[f"{layer}.weight"], rtol=1e-9, atol=1e-12)


def test_looking_shows_the_same_with_and_without_a_program() -> None:
    model, x, y = small()
    network = pcgraph.compile(model)
    for made in (pcgraph.IL, pcgraph.FixedPrediction, pcgraph.ErrorPC):
        one = network.infer(x, y, squared, made(0.125, 12))
        other = network.infer(x, y, squared, made(0.125, 12, tolerance=1e-300))
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-9, atol=0)
        for kind in ("values", "errors", "gradients", "input_gradients"):
            mine, simulated = getattr(one, kind), getattr(other, kind)
            assert set(mine) == set(simulated), kind
            for name, tensor in mine.items():
                torch.testing.assert_close(tensor, simulated[name], rtol=1e-9, atol=1e-12)


def test_refusals() -> None:
    model, x, y = small()
    network, rule = pcgraph.compile(model), pcgraph.IL(steps=2)
    with pytest.raises(pcgraph.PCGraphError, match="switched off"), torch.no_grad():
        network.learn(x, y, squared, rule)
    with pytest.raises(pcgraph.PCGraphError, match="autocast"), torch.autocast("cpu", torch.bfloat16):
        network.learn(x, y, squared, rule)
    with pytest.raises(pcgraph.PCGraphError, match="one real number"):
        network.learn(x, y, lambda output, target: output - target, rule)
    with pytest.raises(pcgraph.PCGraphError, match="does not depend"):
        network.learn(x, y, lambda output, target: (output.detach() - target).sum() + 0 * output.sum().detach(), rule)
    weights = nn.Linear(3, 1).double()
    with pytest.raises(pcgraph.PCGraphError, match="parameters of its own"):
        network.learn(x, y, lambda output, target: (weights(output) - target).sum(), rule)
