"""Value nodes on layers: what becomes part of its reader, and what must not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph.graph import PCGraph
from pcgraph.passes import Fold


def vertices(model: nn.Module, *inputs: Tensor) -> dict[str, str]:
    """Operations by name, as formulas of their parts."""
    graph = pcgraph.compile(model, example_inputs=inputs, value_nodes="layers").graph
    return {v.name: v.op for v in graph.vertices.values() if v.operation is not None}


def model_of(function: object, *layers: nn.Module) -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x: Tensor) -> Tensor:
            return function(self.layers, x)  # type: ignore[operator]

    torch.manual_seed(0)
    return Model()


def linear(n: int = 1) -> list[nn.Linear]:
    return [nn.Linear(4, 4) for _ in range(n)]


def test_activations_belong_to_the_layer_behind_them() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    assert vertices(model, torch.ones(3, 4)) == {
        "linear": "linear",
        "linear_1": "linear(tanh)",
        "linear_2": "linear(relu)",  # flattening what is flat is no operation
    }


def test_the_text_is_the_formula() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    graph = pcgraph.compile(model, example_inputs=(torch.ones(3, 4),), value_nodes="layers").graph
    assert "%linear_1 = linear(tanh(%linear), %_2_weight, None) : f32[3,2]*  d=0 @2" in str(graph)
    assert graph.steps == 1
    assert {edge[:2] for edge in graph.to_networkx().edges} >= {("linear", "linear_1"), ("_2_weight", "linear_1")}


def test_trees_grow_to_any_height() -> None:
    model = model_of(lambda f, x: f[1]((f[0](x).sin().cos() * 2).relu()), *linear(2))
    assert vertices(model, torch.ones(3, 4))["linear_1"] == "linear(relu(mul(cos(sin))))"


def test_two_branches_join_in_one_formula() -> None:
    model = model_of(lambda f, x: f[2](torch.sigmoid(f[0](x)) * torch.tanh(f[1](x))), *linear(3))
    found = vertices(model, torch.ones(3, 4))
    assert found == {"linear": "linear", "linear_1": "linear", "linear_2": "linear(mul(sigmoid, tanh))"}


@pytest.mark.parametrize(
    ("what", "function"),
    [
        ("it is read twice", lambda f, x: f[1](h := torch.tanh(f[0](x))) + h),
        ("one vertex reads it twice", lambda f, x: f[1]((h := torch.tanh(f[0](x))) * h)),
        ("it is returned", lambda f, x: (f[1](h := torch.tanh(f[0](x))), h)),
        ("somebody without an error reads it", lambda f, x: f[1](h := torch.tanh(f[0](x))) * (h > 0)),
    ],
)
def test_a_value_that_others_see_keeps_its_node(what: str, function: object) -> None:
    assert "tanh" in vertices(model_of(function, *linear(2)), torch.ones(3, 4)), what


def test_errors_are_added_up_in_the_same_order() -> None:
    """Three uses of h; were cos(h) to move to its reader, it would come after h's use by tanh."""
    model = model_of(lambda f, x: f[1](torch.cos(h := f[0](x))) + f[2](torch.tanh(h)) + h, *linear(3))
    assert pcgraph.verify(model, (torch.randn(3, 4),)).exact
    between = model_of(lambda f, x: (c := torch.cos(h := f[0](x)), f[2](torch.tanh(h) + h), f[1](c))[1:], *linear(3))
    found = vertices(between, torch.ones(3, 4))
    assert "cos" in found and "tanh" not in found


class Noise(nn.Module):
    """Dropout whose reader comes before or after another one's draw."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.late = late

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(self.first(x), 0.5)
        if self.late:
            return nn.functional.dropout(self.third(x), 0.5) * self.second(h)
        h = self.second(h)
        return nn.functional.dropout(self.third(x), 0.5) * h


@pytest.mark.parametrize("late", [False, True])
def test_random_numbers_keep_their_order(late: bool) -> None:
    torch.manual_seed(0)
    model, x = Noise(late), torch.ones(64, 4)
    found = vertices(model, x)
    assert ("dropout" in found) is late and ("linear(dropout)" in found.values()) is not late
    network = pcgraph.compile(model, value_nodes="layers")
    torch.manual_seed(1)
    model(x).square().sum().backward()
    expected, state = [p.grad for p in model.parameters()], torch.get_rng_state()
    model.zero_grad()
    torch.manual_seed(1)
    network(x).square().sum().backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))  # type: ignore[arg-type]


def test_written_state_stays_beside_what_writes_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.BatchNorm1d(4, affine=False), nn.ReLU(), nn.Linear(4, 2))
    found = vertices(model, torch.randn(5, 4))
    assert list(found.values()) == ["linear", "add_", "batch_norm(tanh)", "linear(relu)"]  # add_ counts batches
    graph = pcgraph.compile(model, example_inputs=(torch.randn(5, 4),), value_nodes="layers").graph
    norm = graph["batch_norm"]
    assert norm.operation is not None and norm.operation.writes
    assert {norm.operands[i].vertex for i in norm.operation.writes} == {"_2_running_mean", "_2_running_var"}


def test_whoever_runs_the_pass_says_what_has_a_node() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    graph = pcgraph.compile(model, example_inputs=(torch.ones(3, 4),)).graph

    def every_second(graph: PCGraph, vertex: object) -> bool:
        return vertex.name == "linear_1"  # type: ignore[attr-defined]

    folded = Fold(keep=every_second)(graph)
    operations = {v.name: v.op for v in folded.vertices.values() if v.operation is not None}
    assert operations == {"linear_1": "linear(tanh(linear))", "linear_2": "linear(tanh)"}
    assert [use.update_time for use in folded.parameter_uses] == [1, 1, 1, 1, 0, 0]


def test_inference_relaxes_layers_only() -> None:
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(6, 4), torch.randn(6, 2)
    network = pcgraph.compile(model.double(), value_nodes="layers")
    found = network.infer(x.double(), y.double(), nn.functional.mse_loss, pcgraph.IL(gamma=0.1, steps=4))
    assert set(found.values) == {"linear", "linear_1"}
    value = x.double() @ model[0].weight.T + model[0].bias  # by hand: the papers' equations
    mu, first = value.clone(), value.clone()
    for _ in range(4):
        error = 2 * (torch.tanh(value) @ model[2].weight.T + model[2].bias - y.double()) / y.numel()
        value = value - 0.1 * ((value - mu) + (1 - torch.tanh(value) ** 2) * (error @ model[2].weight))
    assert not torch.equal(value, first)
    torch.testing.assert_close(found.values["linear"], value)


def test_what_is_asked_for_must_exist() -> None:
    with pytest.raises(pcgraph.PCGraphError, match="value_nodes must be 'operations' or 'layers', not 'modules'"):
        pcgraph.compile(nn.Linear(2, 2), value_nodes="modules")
