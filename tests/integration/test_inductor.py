"""Back end `inductor`: as close to float64 as backprop is, with the same buffers and random numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph
from pcgraph.codegen.inductor import cell
from tests.zoo import ZOO, Case

pytestmark = pytest.mark.usefixtures("one_thread")


def report_of(case: Case) -> pcgraph.Report:
    model, args, kwargs = case.build()
    enabled = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.set_flags(_enabled=not case.native)
    try:
        return pcgraph.verify(model, args, kwargs, case.loss, rounds=1, backend="inductor")
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)


class Steps(nn.Module):
    """Tanh units over time, dropout on what comes out, a normalisation that keeps statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.w_x, self.w_h = nn.Linear(3, 5), nn.Linear(5, 5, bias=False)
        self.norm, self.out = nn.BatchNorm1d(5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 5)
        for step in x.unbind(1):
            h = torch.tanh(self.w_x(step) + self.w_h(h))
        kept = F.dropout(torch.ones_like(h, dtype=torch.float32), 0.3, self.training)  # the same in float64
        return self.out(self.norm(h) * kept.to(h.dtype))


def inputs() -> Tensor:
    return torch.randn(6, 12, 3, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model() -> Steps:
    torch.manual_seed(0)
    return Steps()


def squared(output: Tensor, target: Tensor) -> Tensor:
    return ((output - target) ** 2).mean()


def step_of(model: Steps, call: object, whole: bool) -> list[Tensor]:
    """Loss, gradients, buffers and random state of one step."""
    torch.manual_seed(5)
    model.zero_grad()
    dtype = model.out.weight.dtype
    x, target = inputs().to(dtype), torch.ones(6, 2, dtype=dtype)
    if whole:
        assert isinstance(call, pcgraph.PCNetwork)
        loss = call.step(x, target, squared)
    else:
        loss = squared(call(x), target)  # type: ignore[operator]
        loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *gradients, *model.buffers(), torch.get_rng_state()]


def test_a_recurrent_step_and_what_stays_as_it_is(model: Steps) -> None:
    plain, twin, wide = (copy.deepcopy(model) for _ in range(3))
    network = pcgraph.compile(twin, backend="inductor")
    expected, exact = step_of(plain, plain, False), step_of(wide.double(), wide, False)
    compiled = len(cell._cells)
    for whole in (False, False, True):
        for name, buffer in model.named_buffers():
            dict(twin.named_buffers())[name].copy_(buffer)
        got = step_of(twin, network, whole)
        assert len(got) == len(expected) == len(exact)
        for a, b, real in zip(expected, got, exact, strict=True):
            if a.is_floating_point():  # two roundings of the same real numbers
                own, floor = (a - real).abs().max(), 4 * torch.finfo(torch.float32).eps * real.abs().max()
                assert b.dtype is torch.float32 and (b - real).abs().max() <= max(2 * own, floor)
            else:
                assert torch.equal(a, b)
        assert torch.equal(got[-1], expected[-1])
    assert len(cell._cells) > compiled
    assert network.cache_info()["uncompiled"] == {}
    # Twelve steps are few regions: each is called several times, with products over time merged.
    assert "torch.cat" in network.sources["learn"]


def test_verify_tells_the_distance(model: Steps) -> None:
    report = pcgraph.verify(model, inputs(), rounds=1, backend="inductor")
    assert report.close and report.backend == "inductor"
    assert any(c.status == "close" for c in report.comparisons)
    assert 0 < report.max_rel < 1e-4
    assert all(c.exact for c in report.comparisons if c.kind == "random state")
    assert "close, at most" in str(report)
    assert pcgraph.verify(model, inputs(), rounds=1).exact


def test_a_failure_of_the_compiler_leaves_the_lines(model: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(cell, "compiled", fail)
    monkeypatch.setattr(cell, "_cells", {})
    monkeypatch.setattr(pcgraph.compiler, "_programs", type(pcgraph.compiler._programs)())
    plain, twin = copy.deepcopy(model), copy.deepcopy(model)
    network = pcgraph.compile(twin, backend="inductor")
    expected, got = step_of(plain, plain, False), step_of(twin, network, False)
    for a, b in zip(expected, got, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)
    reasons = network.cache_info()["uncompiled"]
    assert reasons and all("no C++ compiler" in reason for reason in reasons.values())


def test_a_wrong_kernel_is_found(model: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(function: cell.Kernel, values: object, **kwargs: object) -> cell.Kernel:
        return lambda v: [r * 1.001 if r.is_floating_point() else r for r in function(v)]

    monkeypatch.setattr(cell, "compiled", wrong)
    monkeypatch.setattr(cell, "_cells", {})
    monkeypatch.setattr(pcgraph.compiler, "_programs", type(pcgraph.compiler._programs)())
    network = pcgraph.compile(copy.deepcopy(model), backend="inductor")
    step_of(network.module, network, False)
    reasons = network.cache_info()["uncompiled"]
    assert reasons and all("from float64" in reason or "other memory" in reason for reason in reasons.values())


def test_names_of_back_ends() -> None:
    for options in ({"backend": "tvm"}, {"backend": "inductor", "mode": "fast"}, {"mode": "reduce-overhead"}):
        with pytest.raises(pcgraph.PCGraphError, match="back end"):
            pcgraph.compile(nn.Linear(2, 2), **options)


QUICK = ("add_to_a_column", "straight_through")
WIDE = (pytest.mark.wide, pytest.mark.slow)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=WIDE) for n in ZOO])
def test_every_model_is_close(name: str) -> None:
    report = report_of(ZOO[name])
    assert report.close, str(report)
    assert all(c.exact for c in report.comparisons if c.kind == "random state")
