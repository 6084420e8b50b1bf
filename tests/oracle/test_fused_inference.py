"""Inference learning under the back end inductor: calls of a stretch in the right order, kernels as close as lines.

Most of it needs no compiler: where that fails, the lines of a kernel run one by one in its place.
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn

import pcgraph
from pcgraph.codegen.inductor import cell, product
from tests.oracle.test_inference import EXAMPLES, FAST, ROUNDS, compare, squared, without_compiler
from tests.property.dags import Recipe, recipes
from tests.zoo import ZOO

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is compiled."""
    without_compiler(monkeypatch)


# -- the order of calls ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", FAST)
def test_equals_the_simulation(name: str, uncompiled: None) -> None:
    assert compare(ZOO[name], 0.125, bitwise=False, backend="inductor") > 0


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ZOO) - set(FAST) - ROUNDS))
def test_equals_the_simulation_on_the_zoo(name: str, uncompiled: None) -> None:
    if not compare(ZOO[name], 0.125, bitwise=False, backend="inductor"):
        pytest.skip("captured anew at every call, keeps tensors, takes keywords, too large, or without float64")


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(recipes(vertices=16))
def test_equals_the_simulation_on_random_graphs(recipe: Recipe) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without_compiler(patch)
        compare(recipe.case(), 0.125, bitwise=False, backend="inductor")


# -- kernels ---------------------------------------------------------------------------------------------
class Skips(nn.Module):
    """Layers of equal shape, a skip over one of them, a square (whose slope nobody bounds), a weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.deep, self.out = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.into(x))
        h = h + torch.tanh(self.deep(h))
        h = torch.relu(self.deep(h))
        return self.out(h + 0.1 * h**2)


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 6, generator=generator).to(dtype), torch.randn(4, 3, generator=generator).to(dtype)


@pytest.mark.slow
def test_kernels_for_every_number_of_steps() -> None:
    """float64, where a kernel differs from the simulation by roundings of 1e-16; then nothing is compiled anew."""
    torch.manual_seed(0)
    model = Skips().double()
    x, y = batch(torch.float64)
    network, plain = pcgraph.compile(model, backend="inductor"), pcgraph.compile(model)
    network.infer(x, y, squared, pcgraph.IL(0.1, 20))
    compiled = len(cell._cells)
    for steps in (0, 1, 2, 3, 5, 8, 9, 20):
        rule = pcgraph.IL(0.2, steps)
        found = network.infer(x, y, squared, rule)
        trace = plain.simulate(x, loss=lambda output: squared(output, y), rule=rule, options={"record": ("errors",)})
        for name, gradient in trace.gradients.items():
            torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-9, atol=1e-13)
        for name, error in found.errors.items():
            torch.testing.assert_close(error, trace.errors[name][-1], rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(torch.tensor(found.losses), torch.tensor(trace.losses))
    assert len(cell._cells) == compiled
    assert network.cache_info()["uncompiled"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("value_nodes", ["operations", "layers"])
def test_packed_weights_and_kernels_in_float32(value_nodes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the simulation in float64, measured by the eager back end's own distance; a step of SGD included."""
    kernel = product._compiled()  # in use without a trial, which would not let a wrong one pass
    assert kernel is not None
    monkeypatch.setattr(product, "_trial", lambda rows, matrix: kernel)
    monkeypatch.setattr(product, "_quicker", {})
    torch.manual_seed(0)
    layers = [nn.Linear(24, 40), nn.Tanh(), nn.Linear(40, 33), nn.Tanh(), nn.Linear(33, 7)]
    model, x, y = nn.Sequential(*layers), torch.randn(20, 24), torch.randn(20, 7)
    rule, wide = pcgraph.IL(gamma=0.1, steps=20), copy.deepcopy(model).double()
    exact = pcgraph.compile(wide, value_nodes=value_nodes).simulate(
        x.double(), loss=lambda output: squared(output, y.double()), rule=rule
    )
    packed: list[product.RightHand] = []
    pack = product.RightHand.pack
    monkeypatch.setattr(product.RightHand, "pack", lambda self, kernel: (packed.append(self), pack(self, kernel))[1])
    steps: dict[str, dict[str, Tensor]] = {}
    for backend in ("eager", "inductor"):
        twin = copy.deepcopy(model)
        network = pcgraph.compile(twin, backend=backend, value_nodes=value_nodes)
        network.learn(x, y, squared, rule, torch.optim.SGD(twin.parameters(), lr=1.0))
        before = dict(model.named_parameters())
        steps[backend] = {name: (before[name] - p).detach() for name, p in twin.named_parameters()}
        assert network.cache_info()["uncompiled"] == {}
    assert (
        len({tuple(right._matrix.shape) for right in packed}) >= 4
    )  # both weights behind the first, in both directions
    for name, gradient in exact.gradients.items():
        eager, fused = ((steps[backend][name] - gradient).abs().max() for backend in ("eager", "inductor"))
        assert fused <= max(4 * eager, 16 * torch.finfo(torch.float32).eps * gradient.abs().max()), name
        assert gradient.abs().max() > 100 * fused


@pytest.mark.wide
@pytest.mark.slow
def test_float32_is_as_close_to_float64_as_the_eager_back_end() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))
    x, y = batch(torch.float32)
    rule = pcgraph.IL(0.1, 12)
    wide = pcgraph.compile(copy.deepcopy(model).double()).infer(x.double(), y.double(), squared, rule)
    network = pcgraph.compile(model, backend="inductor")
    fused, eager = network.infer(x, y, squared, rule), pcgraph.compile(model).infer(x, y, squared, rule)
    for name, exact in wide.gradients.items():
        allowed = max(float((eager.gradients[name].double() - exact).abs().max()), 1e-6 * float(exact.abs().max()))
        assert (fused.gradients[name].double() - exact).abs().max() < 8 * allowed, name
    assert network.cache_info()["uncompiled"] == {}
    network.learn(x, y, squared, rule)  # the same program without looking
    for name, gradient in fused.gradients.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-7)


def test_a_wrong_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(monkeypatch)

    def wrong(function: cell.Kernel, values: object, *, places: object = None, **kwargs: object) -> cell.Kernel:
        def run(arguments: list[Tensor]) -> list[Tensor]:
            results = [r * 1.001 if r.is_floating_point() else r for r in function(list(arguments))]
            return list(cell.placed(lambda _: results, arguments, places))  # type: ignore[arg-type]

        return run

    monkeypatch.setattr(cell, "compiled", wrong)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = batch(torch.float64)
    network, rule = pcgraph.compile(model, backend="inductor"), pcgraph.IL(0.1, 9)
    found = network.infer(x, y, squared, rule)
    expected = pcgraph.compile(model).infer(x, y, squared, rule)
    for name, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, rtol=1e-9, atol=1e-12)
    reasons = network.cache_info()["uncompiled"]
    assert any(label.startswith("infer") and "from float64" in reason for label, reason in reasons.items())
