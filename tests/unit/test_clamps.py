"""Value nodes that are held, freed and masked; energies; what a trace keeps and shows."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph
from pcgraph.dynamics import Custom
from pcgraph.errors import PCGraphError

matplotlib.use("Agg")


def small(seed: int = 0) -> tuple[pcgraph.PCNetwork, Tensor, Tensor]:
    torch.manual_seed(seed)
    layers = [nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)]
    model = nn.Sequential(*layers).double()
    return pcgraph.compile(model), torch.randn(4, 6).double(), torch.randn(4, 3).double()


def run(rule: pcgraph.Rule, target: bool = True, **options: Any) -> pcgraph.Trace:
    network, x, y = small()
    return network.simulate(x, target=y if target else None, rule=rule, options=options)


# -- clamps ----------------------------------------------------------------------------------------------
def test_an_output_clamped_to_the_target_is_the_squared_loss() -> None:
    network, x, y = small()
    rule = pcgraph.IL(gamma=0.2, steps=25)
    by_loss = network.simulate(x, target=y, rule=rule)
    clamped = network.simulate(x, rule=rule, options={"clamp": {"linear_2": y}})
    for name, gradient in by_loss.gradients.items():
        torch.testing.assert_close(clamped.gradients[name], gradient, rtol=1e-12, atol=1e-14)
    assert math.isclose(clamped.energies[-1], by_loss.energies[-1], rel_tol=1e-12)
    assert clamped.losses == [0.0] * 26


def test_nothing_above_is_prediction() -> None:
    network, x, _ = small()
    trace = network.simulate(
        x, rule=pcgraph.IL(gamma=0.2, steps=200), options={"free": ["linear_2"], "initial_error": 0.1}
    )
    assert trace.energies[0] > 0.1 and trace.energies[-1] < 1e-6 * trace.energies[0]
    torch.testing.assert_close(trace.final_values["linear_2"], network.module(x).detach(), rtol=0, atol=1e-3)


def test_a_free_input_moves_until_it_explains_the_output() -> None:
    network, x, _ = small()
    goal = network.module(torch.randn(4, 6).double()).detach()  # can be reached
    rule, clamp = pcgraph.IL(gamma=0.3, steps=3000), {"linear_2": goal}
    trace = network.simulate(x, rule=rule, options={"free": ["input_1"], "clamp": clamp})
    held = network.simulate(x, rule=rule, options={"clamp": clamp})
    assert trace.energies[-1] < 0.1 * held.energies[-1]
    assert not torch.equal(trace.final_values["input_1"], x)


def test_a_masked_input_is_completed_where_it_is_free() -> None:
    network, x, y = small()
    held = torch.tensor([True, True, True, False, False, False])
    options = {"mask": {"input_1": held}, "clamp": {"linear_2": y}}
    trace = network.simulate(x, rule=pcgraph.IL(gamma=0.2, steps=50), options=options)
    after = trace.final_values["input_1"]
    assert torch.equal(after[:, held], x[:, held]) and (after[:, ~held] != x[:, ~held]).all()


def test_half_a_hidden_value_is_held() -> None:
    network, x, y = small()
    where, at = torch.tensor([True, False, True, False, False]), torch.full((4, 5), 0.3).double()
    options = {"mask": {"tanh": where}, "clamp": {"tanh": at}, "record": ("values",), "only": "tanh"}
    trace = network.simulate(x, target=y, rule=pcgraph.IL(gamma=0.2, steps=20), options=options)
    assert all(torch.equal(value[:, where], at[:, where]) for value in trace.values["tanh"])
    assert not torch.equal(trace.values["tanh"][0][:, ~where], trace.values["tanh"][-1][:, ~where])
    assert list(trace.values) == ["tanh"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clamp": {"nobody": torch.zeros(1)}}, "no value node"),
        ({"clamp": {"linear_2": torch.zeros(1)}}, "follows the loss"),
        ({"clamp": {"input_1": torch.zeros(1)}}, "pass the tensor as the input"),
        ({"clamp": {"tanh": torch.zeros(9, 9)}}, r"shape \[9, 9\]"),
        ({"free": "tanh"}, "one string"),
        ({"free": ["tanh"], "mask": {"tanh": torch.tensor(True)}}, "free and clamped"),
        ({"energies": {"nobody*": 2.0}}, "no hidden value"),
        ({"energies": {"tanh": pcgraph.Categorical()}}, "no lowest point"),
        ({"energies": {"tanh": -1.0}}, "not positive"),
        ({"energies": {"tanh": "much"}}, "not an energy"),
        ({"only": "nobody"}, "matches no value node"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PCGraphError, match=words):
        run(pcgraph.IL(steps=2), record=("values",), **options)


def test_a_target_and_a_loss_or_neither_are_refused() -> None:
    network, x, y = small()
    with pytest.raises(PCGraphError, match="one of them"):
        network.simulate(x, rule=pcgraph.IL())
    with pytest.raises(PCGraphError, match="one of them"):
        network.simulate(x, target=y, loss=lambda output: output.sum(), rule=pcgraph.IL())


# -- energies --------------------------------------------------------------------------------------------
def test_a_function_equals_the_energy_that_it_spells_out() -> None:
    def gaussian(x: Tensor, mu: Tensor) -> Tensor:
        return 1.5 * ((x - mu) ** 2).sum() / 2

    built_in = run(pcgraph.IL(gamma=0.1, steps=20), energies={"tanh*": 1.5})
    own = run(pcgraph.IL(gamma=0.1, steps=20), energies={"tanh*": gaussian})
    for name, gradient in built_in.gradients.items():
        torch.testing.assert_close(own.gradients[name], gradient, rtol=1e-12, atol=1e-14)
    assert math.isclose(own.energies[-1], built_in.energies[-1], rel_tol=1e-12)


def test_precisions_by_element_and_by_module_path() -> None:
    plain = run(pcgraph.IL(gamma=0.1, steps=20))
    ones = run(pcgraph.IL(gamma=0.1, steps=20), energies={"tanh": torch.ones(5)})
    twos = run(pcgraph.IL(gamma=0.1, steps=20), energies={"0": 2.0})
    name = "0.weight"
    assert torch.equal(ones.gradients[name], plain.gradients[name])
    assert not torch.equal(twos.gradients[name], plain.gradients[name])


@pytest.mark.parametrize("kind", ["categorical", "bernoulli"])
def test_energies_of_a_clamped_output_are_the_losses(kind: str) -> None:
    network, x, y = small()
    rule = pcgraph.IL(gamma=0.1, steps=15)
    target = torch.softmax(y, 1) if kind == "categorical" else torch.sigmoid(y)
    energy: pcgraph.Energy = pcgraph.Categorical() if kind == "categorical" else pcgraph.Bernoulli()

    def loss(output: Tensor) -> Tensor:
        if kind == "categorical":
            return F.cross_entropy(output, target, reduction="sum")
        return F.binary_cross_entropy_with_logits(output, target, reduction="sum")

    by_loss = network.simulate(x, loss=loss, rule=rule)
    by_energy = network.simulate(
        x, rule=rule, options={"clamp": {"linear_2": target}, "energies": {"linear_2": energy}}
    )
    for name, gradient in by_loss.gradients.items():
        torch.testing.assert_close(by_energy.gradients[name], gradient, rtol=1e-12, atol=1e-14)
    assert math.isclose(by_energy.energies[-1], by_loss.energies[-1], rel_tol=1e-12)


def test_every_energy_pulls_down_its_own_slope() -> None:
    torch.manual_seed(0)
    x, mu = torch.rand(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    x = x / x.sum(-1, keepdim=True)
    for energy in (
        pcgraph.Gaussian(),
        pcgraph.Gaussian(torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)),
        pcgraph.Categorical(),
        pcgraph.Bernoulli(),
        Custom(lambda a, b: (a - b).abs().pow(3).sum()),
    ):
        a, b = x.clone().requires_grad_(), mu.clone().requires_grad_()
        energy.value(a, b, a - b).backward()
        eps = energy.error(x, mu)
        torch.testing.assert_close(energy.message(x, mu, eps), -b.grad, rtol=1e-12, atol=1e-14)
        if not energy.clamped_only:
            torch.testing.assert_close(energy.pull(x, mu, eps), a.grad, rtol=1e-12, atol=1e-14)


# -- how inference goes ----------------------------------------------------------------------------------
def test_inference_stops_when_every_vertex_is_at_rest() -> None:
    trace = run(pcgraph.IL(gamma=0.3, steps=5000, tolerance=1e-6))
    assert 10 < trace.steps < 5000 and set(trace.rest) == {"linear", "tanh", "linear_1", "tanh_1"}
    assert max(trace.rest.values()) == trace.steps
    longer = run(pcgraph.IL(gamma=0.3, steps=5000, tolerance=1e-9))
    assert longer.steps > trace.steps


def test_optimizers_of_torch_move_the_values() -> None:
    plain = run(pcgraph.IL(gamma=0.1, steps=30))
    descent = run(pcgraph.IL(steps=30, optimizer=functools.partial(torch.optim.SGD, lr=0.1)), coordinates="error")
    for name, gradient in plain.gradients.items():
        torch.testing.assert_close(descent.gradients[name], gradient, rtol=1e-9, atol=1e-12)
    momentum = run(pcgraph.IL(steps=30, optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5)))
    adam = run(pcgraph.IL(steps=200, optimizer=functools.partial(torch.optim.Adam, lr=0.02)))
    assert momentum.energies[-1] < plain.energies[-1] < plain.energies[0]
    assert adam.energies[-1] < plain.energies[0]
    with pytest.raises(PCGraphError, match="weight decay"):
        run(pcgraph.IL(optimizer=functools.partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)))
    with pytest.raises(PCGraphError, match="no optimizer"):
        run(pcgraph.IL(optimizer=lambda values: values))  # type: ignore[arg-type, return-value]


def test_small_steps_of_il_come_to_the_flow() -> None:
    pytest.importorskip("torchdiffeq")
    flow = run(pcgraph.Flow(gamma=0.5, steps=6))
    gaps = []
    for parts in (10, 100):
        il = run(pcgraph.IL(gamma=0.5 / parts, steps=6 * parts))
        gaps.append(max(float((il.gradients[n] - g).abs().max()) for n, g in flow.gradients.items()))
    assert gaps[1] < gaps[0] / 8 and gaps[1] < 1e-3  # a method of first order


@pytest.mark.parametrize("rule", [pcgraph.IL(steps=4), pcgraph.ErrorPC(steps=4), pcgraph.Flow(steps=4), pcgraph.ZIL()])
def test_where_no_value_can_move_the_head_learns(rule: pcgraph.Rule) -> None:
    if isinstance(rule, pcgraph.Flow):
        pytest.importorskip("torchdiffeq")
    model = torch.nn.Sequential(torch.nn.Linear(3, 4).requires_grad_(False), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    x, y = torch.randn(5, 3), torch.randn(5, 2)
    trace = pcgraph.compile(model).simulate(x, target=y, rule=rule)
    ((model(x) - y) ** 2).sum().div(2).backward()
    assert trace.gradients.keys() == {"2.weight", "2.bias"}
    torch.testing.assert_close(trace.gradients["2.weight"], model[2].weight.grad)


def test_a_gamma_that_is_too_large_is_told_so() -> None:
    network, x, y = small()
    for rule in (pcgraph.IL(gamma=5.0, steps=40), pcgraph.ErrorPC(gamma=5.0, steps=40)):
        with pytest.warns(UserWarning, match=r"gamma=5.0 the energy went from .* smaller gamma"):
            network.simulate(x, target=y, rule=rule)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rule in (pcgraph.IL(steps=9), pcgraph.ErrorPC(steps=9), pcgraph.FixedPrediction(gamma=1.0, steps=9)):
            network.simulate(x, target=y, rule=rule)
        network.simulate(x, target=y, rule=pcgraph.ZIL())


def test_what_is_no_rule_is_told_so() -> None:
    network, x, y = small()
    for wrong in (pcgraph.IL, "il", None, 3):
        for call in (network.learn, network.infer):
            with pytest.raises(PCGraphError, match="not a rule"):
                call(x, y, torch.nn.functional.mse_loss, wrong)  # type: ignore[operator]
        if wrong is not None:
            with pytest.raises(PCGraphError, match="not a rule"):
                network.simulate(x, target=y, rule=wrong)  # type: ignore[arg-type]
    with pytest.raises(PCGraphError, match=r"\['fre'\] are not known"):
        network.simulate(x, target=y, options={"fre": ["input_1"]})
    for steps in (2.5, -1, True, "3"):
        with pytest.raises(PCGraphError, match="number of steps"):
            pcgraph.IL(steps=steps)  # type: ignore[arg-type]
    for gamma in (0, -1.0, "a", float("nan"), True):
        with pytest.raises(PCGraphError, match="not a step size"):
            pcgraph.ErrorPC(gamma=gamma)  # type: ignore[arg-type]


def test_a_rule_that_learns_online_says_so() -> None:
    network, x, y = small()
    assert pcgraph.IncrementalPC.online and not pcgraph.IL.online
    with pytest.raises(PCGraphError, match="rate"):
        network.simulate(x, target=y, rule=pcgraph.IncrementalPC())
    with pytest.raises(PCGraphError, match="rate"):
        network.learn(x, y, F.mse_loss, pcgraph.IncrementalPC())
    optimizer = torch.optim.SGD(network.module.parameters(), lr=0.05)
    losses = [float(network.learn(x, y, F.mse_loss, pcgraph.IncrementalPC(0.2, 8), optimizer)) for _ in range(20)]
    assert losses[-1] < losses[0] and all(p.grad is None for p in network.module.parameters())
    with pytest.raises(PCGraphError, match="optimizer"):
        network.learn(x, y, F.mse_loss, pcgraph.IncrementalPC(rate=0.1), optimizer)


# -- closed forms ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", [pcgraph.IL(0.2, 20000, 1e-12), pcgraph.ErrorPC(0.05, 20000, 1e-12)])
def test_deep_linear_networks_have_a_known_equilibrium(rule: pcgraph.Rule) -> None:
    """``F* = 1/2 sum r^T S^-1 r`` with ``S = I + sum_l W_L..W_l W_l^T..W_L^T`` (Innocenti et al. 2024, theorem 1)."""
    torch.manual_seed(1)
    model = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(3)]).double()
    x, y = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    covariance, product = torch.eye(4).double(), torch.eye(4).double()
    for layer in (model[2], model[1]):  # the input is clamped: W_1 sees no moving value below
        product = product @ layer.weight.detach()
        covariance = covariance + product @ product.T
    rest = y - model(x).detach()
    wanted = 0.5 * (rest @ torch.linalg.inv(covariance) * rest).sum()
    trace = pcgraph.compile(model).simulate(x, target=y, rule=rule)
    assert math.isclose(trace.energies[-1], float(wanted), rel_tol=1e-9)
    assert trace.energies[0] > 1.01 * float(wanted)


def test_fixed_predictions_reach_backprop_after_as_many_steps_as_the_graph_is_deep() -> None:
    network, x, y = small()
    depth = network.prepare(x).graph.steps
    exact, early = (network.simulate(x, target=y, rule=pcgraph.FixedPrediction(1.0, t)) for t in (depth, depth - 1))
    (F.mse_loss(network.module(x), y, reduction="sum") / 2).backward()
    for name, p in network.module.named_parameters():
        torch.testing.assert_close(exact.gradients[name], p.grad, rtol=1e-12, atol=1e-14)
    assert not early.gradients["0.weight"].any()


def test_energies_never_rise_under_a_small_gamma() -> None:
    for rule in (pcgraph.IL(0.05, 100), pcgraph.ErrorPC(0.02, 100)):
        energies = run(rule).energies
        assert all(b <= a for a, b in itertools.pairwise(energies)) and energies[-1] < energies[0]


@pytest.mark.parametrize(
    "options",
    [
        {"energies": {"tanh*": 2.0, "linear": 0.5}},
        {"energies": {"tanh": lambda x, mu: ((x - mu) ** 2).sum() + ((x - mu) ** 4).sum()}},
        {"clamp": {"tanh": torch.full((4, 5), 0.3)}},
        {"clamp": {"tanh": torch.full((4, 5), 0.3)}, "mask": {"tanh": torch.tensor([True, False, True, False, False])}},
    ],
    ids=["precision", "function", "clamp", "mask"],
)
def test_values_and_errors_come_to_rest_at_the_same_place(options: dict[str, Any]) -> None:
    values, errors = run(pcgraph.IL(0.15, 5000, 1e-11), **options), run(pcgraph.ErrorPC(0.05, 5000, 1e-11), **options)
    assert max(values.steps, errors.steps) < 5000
    assert math.isclose(values.energies[-1], errors.energies[-1], rel_tol=1e-12)
    for name, gradient in values.gradients.items():
        torch.testing.assert_close(errors.gradients[name], gradient, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "rule", [pcgraph.IL(0.125, 9, 1e-300), pcgraph.FixedPrediction(1.0, 20), pcgraph.ErrorPC(0.05, 9)]
)
def test_learning_moves_buffers_and_random_state_once(rule: pcgraph.Rule) -> None:
    def learnt(by_rule: bool) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Tanh(), nn.Linear(8, 3)]
        model, x, y = nn.Sequential(*layers), torch.randn(16, 6), torch.randn(16, 3)
        if by_rule:
            pcgraph.compile(model).learn(x, y, F.mse_loss, rule)
        else:
            F.mse_loss(model(x), y).backward()
        return (*model.buffers(), torch.get_rng_state())

    assert all(map(torch.equal, learnt(True), learnt(False)))


# -- traces ----------------------------------------------------------------------------------------------
def everything() -> pcgraph.Trace:
    return run(pcgraph.IL(gamma=0.2, steps=12), record=("energies", "norms", "errors", "values", "distance"))


def test_only_what_was_asked_for_is_kept() -> None:
    trace = run(pcgraph.IL(gamma=0.2, steps=12))
    assert not (trace.vertex_energies or trace.norms or trace.errors or trace.values or trace.distance)
    full = everything()
    assert len(full.distance) == 13 and full.norms["tanh"][-1] == pytest.approx(float(full.errors["tanh"][-1].norm()))
    assert sum(e[-1] for e in full.vertex_energies.values()) + full.losses[-1] == pytest.approx(full.energies[-1])


def test_the_distance_is_that_of_the_gradients() -> None:
    network, x, y = small()
    trace = network.simulate(x, target=y, rule=pcgraph.IL(0.2, 12), options={"record": ("distance",)})
    (F.mse_loss(network.module(x), y, reduction="sum") / 2).backward()
    slopes = {name: p.grad for name, p in network.module.named_parameters()}
    apart = sum(float((trace.gradients[n] - g).square().sum()) for n, g in slopes.items())
    size = sum(float(g.square().sum()) for g in slopes.values())
    assert trace.distance[-1] == pytest.approx((apart / size) ** 0.5, rel=1e-10)
    zil = network.simulate(x, target=y, rule=pcgraph.ZIL(), options={"record": ("distance",), "coordinates": "error"})
    assert zil.distance[0] > 0.1 and zil.distance[-1] < 1e-14


def test_tables_of_pandas_and_xarray() -> None:
    pandas, xarray = pytest.importorskip("pandas"), pytest.importorskip("xarray")
    trace = everything()
    frame = trace.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 13 * (1 + len(trace.norms))
    row = frame[(frame.value == "tanh") & (frame.t == 12)].iloc[0]
    assert (row.depth, row.norm) == (trace.depth_of("tanh"), trace.norms["tanh"][12])
    assert frame[frame.value == ""].energy.tolist() == trace.energies
    data = trace.to_xarray()
    assert isinstance(data, xarray.Dataset) and data.energy.values.tolist() == trace.energies
    assert float(data.norm.sel(value="tanh", t=12)) == trace.norms["tanh"][12]
    assert data["error:tanh"].shape == (13, 4, 5)


def test_scalars_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    trace = everything()
    with SummaryWriter(tmp_path) as writer:
        trace.write(writer, "run")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [round(e.value, 4) for e in events.Scalars("run/energy")] == [round(e, 4) for e in trace.energies]
    assert "run/errors/tanh" in events.Tags()["histograms"]


def test_pictures_show_what_was_recorded(tmp_path: Path) -> None:
    trace = everything()
    for kind in ("energy", "wave", "distance"):
        ax = trace.plot(kind)
        ax.figure.savefig(tmp_path / f"{kind}.png")
        assert (tmp_path / f"{kind}.png").stat().st_size > 5000
    lines = trace.plot("energy").get_lines()
    assert list(lines[0].get_ydata()) == trace.energies
    image = trace.plot("wave").get_images()[0].get_array()
    assert image.shape == (max(trace.depth_of(n) for n in trace.norms) + 1, 13)
    with pytest.raises(PCGraphError, match="not recorded"):
        run(pcgraph.IL(steps=2)).plot("wave")
    with pytest.raises(PCGraphError, match="not known"):
        trace.plot("pie")
    matplotlib.pyplot.close("all")


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    run(pcgraph.IL(steps=3), progress=lambda t, of: seen.append((t, of)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    run(pcgraph.IL(steps=3), progress=True)  # quiet where there is no terminal


# -- muPC ------------------------------------------------------------------------------------------------
class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(torch.tanh(x))


def test_mupc_finds_branches_and_ends() -> None:
    model = nn.Sequential(nn.Linear(9, 16), *[Block(16) for _ in range(4)], nn.Linear(16, 2), nn.LayerNorm(2))
    groups = pcgraph.mupc(model, torch.randn(3, 9), lr=1.0)
    rates = {group["name"]: group["lr"] for group in groups}
    branches = {f"{k}.linear.weight": 0.125 for k in range(1, 5)}
    assert rates == {"0.weight": pytest.approx(1 / 3), **branches, "5.weight": 1 / 16, "": 1.0}
    assert sum(p.numel() for group in groups for p in group["params"]) == sum(p.numel() for p in model.parameters())
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}
    squares = {g["name"]: g["lr"] for g in pcgraph.mupc(model, torch.randn(3, 9), lr=1.0, optimizer="sgd")}
    assert squares["1.linear.weight"] == 0.125**2


def test_mupc_keeps_deep_networks_the_same_size() -> None:
    torch.manual_seed(0)
    stream = nn.Sequential(nn.Linear(64, 64), *[Block(64) for _ in range(100)], nn.Linear(64, 2))
    pcgraph.mupc(stream, torch.randn(2, 64), lr=1.0)
    h = stream[0](torch.randn(256, 64))
    first = float(h.detach().std())
    for block in list(stream)[1:-1]:
        h = block(h)
    assert 0.5 < float(h.detach().std()) / first < 2
    with pytest.raises(PCGraphError, match="no linear"):
        pcgraph.mupc(nn.LayerNorm(4), torch.randn(2, 4), lr=1.0)
