"""Invariant 3: the compiled program equals the full simulation at every (v, d_v), in float64, to 1e-10."""

from __future__ import annotations

import pytest
import torch

import pcgraph
from tests.zoo import ZOO

# Whole simulations cost (vertices x depth); these cover skips, fan-out, shared weights, tuples, several outputs.
SIZE_LIMIT = 60 * 40


def simulated(name: str) -> tuple[pcgraph.PCNetwork, object, object, object] | None:
    case = ZOO[name]
    if torch.float64 not in case.dtypes:
        return None
    model, args, kwargs = case.build(torch.float64)
    network = pcgraph.compile(model)
    network.prepare(*args, **kwargs)
    graph = network.graph
    if not graph.depth or network.cache_info()["once"] or len(graph.depth) * (graph.steps + 1) > SIZE_LIMIT:
        return None
    specs = [spec for v in graph.vertices.values() for spec in v.outputs if spec is not None and spec.requires_grad]
    if any(spec.dtype not in (torch.float64, torch.complex128) for spec in specs):
        return None  # the model itself casts to float32: x - mu has no more digits than that
    return network, args, kwargs, case


@pytest.mark.parametrize("coordinates", ["x", "error"])
@pytest.mark.parametrize("name", sorted(ZOO))
def test_equals_simulation(name: str, coordinates: str) -> None:
    made = simulated(name)
    if made is None:
        pytest.skip("too large to simulate in full, without float64, or captured anew at every call")
    network, args, kwargs, case = made
    torch.manual_seed(3)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    trace = network.simulate(*args, loss=case.loss, options={"coordinates": coordinates}, **kwargs)
    network.load_state_dict(state)
    torch.manual_seed(3)
    with network.watch() as errors:
        case.loss(network(*args, **kwargs)).backward()
    assert errors
    scale = max(float(e.abs().max()) for e in errors.values()) or 1.0
    for vertex, error in errors.items():
        gap = float((trace.update_errors[vertex] - error).abs().max()) / scale
        assert gap <= 1e-10, f"eps of {vertex} at t = {network.graph.depth[vertex.split('.')[0]]}: {gap:.1e}"
    for parameter, gradient in trace.gradients.items():
        mine = dict(network.named_parameters(remove_duplicate=False)).get(parameter)
        if mine is None:
            continue  # a tensor that is no parameter of the model
        if mine.grad is None:
            assert not gradient.any()  # autograd's None: the loss does not depend on it
        else:
            assert float((mine.grad - gradient).abs().max()) <= 1e-10 * max(1.0, float(gradient.abs().max()))


def test_enough_models_are_simulated() -> None:
    assert sum(simulated(name) is not None for name in ZOO) >= 60


def test_ablations_on_a_real_model_fail() -> None:
    """Each condition of Z-IL is needed: without it the gradients of a residual network are not backprop's."""
    torch.manual_seed(0)

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = torch.tanh(self.a(x))
            return self.c(h + torch.tanh(self.b(h)))

    model = Residual().double()
    network = pcgraph.compile(model)
    x, y = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    (((y - model(x)) ** 2).sum() / 2).backward()
    truth = {name: p.grad for name, p in model.named_parameters()}

    def gap(**settings: object) -> float:
        rule = settings.pop("rule", pcgraph.ZIL())
        trace = network.simulate(x, target=y, rule=rule, options=settings)
        return max(float((trace.gradients[n] - g).abs().max() / g.abs().max()) for n, g in truth.items())

    assert gap() < 1e-12
    assert gap(levelled=False) > 1e-3
    assert gap(rule=pcgraph.ZIL(update="end")) > 1e-3
    assert gap(rule=pcgraph.ZIL(gamma=0.5)) > 1e-3
    assert gap(initial_error=1e-3) > 1e-6
