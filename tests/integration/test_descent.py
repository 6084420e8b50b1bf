"""`step` and `learn` with an optimizer: parameters become what a step and the optimizer's own would make them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph
from pcgraph.codegen.inductor import cell
from pcgraph.runtime.descent import Descents

Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
PLAIN: Optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
OPTIMIZERS: dict[str, Optimizer] = {
    "plain": PLAIN,
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "decay": lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1),
    "uphill": lambda parameters: torch.optim.SGD(parameters, lr=0.1, maximize=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "rates of two": lambda parameters: torch.optim.SGD(
        [{"params": parameters[:1], "lr": 0.5}, {"params": parameters[1:]}], lr=0.01
    ),
}
RULES = (pcgraph.ZIL(), pcgraph.IL(0.25, 5))


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Regions run as their lines, which is how a compiler that fails is met; one thread."""

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cell, "compiled", fail)
    monkeypatch.setattr(cell, "_cells", {})
    monkeypatch.setattr(pcgraph.compiler, "_programs", type(pcgraph.compiler._programs)())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Twice(nn.Module):
    """A weight used twice, a bias that is also added elsewhere, a product of two parameters, a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.u, self.v = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(3, 5))
        self.frozen = nn.Linear(5, 5).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.again(torch.tanh(self.first(x))))
        h = torch.tanh(self.again(h) + self.again.bias) @ (self.u @ self.v)
        return self.last(self.frozen(h))


def squared(output: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(output, target, reduction="sum") / 2


def setting() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return Twice().double(), torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)


def trained(backend: str, rule: pcgraph.Rule, make: Optimizer, inside: bool, rounds: int = 3) -> list[Tensor]:
    model, x, y = setting()
    network, optimizer = pcgraph.compile(model, backend=backend), make(list(model.parameters()))
    result = []
    for k in range(rounds):
        if k == 2:
            optimizer.param_groups[0]["lr"] *= 0.5
        if inside:
            result.append(network.learn(x, y, squared, rule, optimizer))
            assert all(p.grad is None for p in model.parameters())
        else:
            result.append(network.learn(x, y, squared, rule))
            optimizer.step()
            optimizer.zero_grad()
    return [*result, *(p.detach() for p in model.parameters())]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equals_a_step_and_the_optimizers_own(name: str, rule: pcgraph.Rule) -> None:
    apart = trained("eager", rule, OPTIMIZERS[name], inside=False)
    assert all(map(torch.equal, apart, trained("eager", rule, OPTIMIZERS[name], inside=True)))
    for a, b in zip(apart, trained("inductor", rule, OPTIMIZERS[name], inside=True), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_weights_learn_where_their_gradients_are_made(rule: pcgraph.Rule) -> None:
    model, x, y = setting()
    network, optimizer = pcgraph.compile(model, backend="inductor"), PLAIN(list(model.parameters()))
    for _ in range(2):
        network.learn(x, y, squared, rule, optimizer)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        network.learn(x, y, squared, rule, optimizer)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["aten::addmm_"] >= 2  # of the first and the last weight; others are used twice, or are operands
    assert not any(key.startswith("Optimizer.step") for key in counts)


def test_gradients_from_before_are_refused() -> None:
    model, x, y = setting()
    network, optimizer = pcgraph.compile(model), PLAIN(list(model.parameters()))
    squared(model(x), y).backward()
    for rule in RULES:
        with pytest.raises(pcgraph.PCGraphError, match="a gradient already"):
            network.learn(x, y, squared, rule, optimizer)
    with pytest.raises(pcgraph.PCGraphError, match="not an optimizer"):
        network.step(x, y, squared, 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_parameters_of_nobody_get_gradients(rule: pcgraph.Rule) -> None:
    model, x, y = setting()
    twin = copy.deepcopy(model)
    pcgraph.compile(twin).learn(x, y, squared, rule)
    optimizer = PLAIN([model.first.weight])
    pcgraph.compile(model, backend="inductor").learn(x, y, squared, rule, optimizer)
    assert model.first.weight.grad is None
    torch.testing.assert_close(model.first.weight.detach(), (twin.first.weight - 0.1 * twin.first.weight.grad).detach())
    for name, p in model.named_parameters():
        if name != "first.weight" and p.requires_grad:
            torch.testing.assert_close(p.grad, twin.get_parameter(name).grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_somebody_waits_for_the_step(rule: pcgraph.Rule) -> None:
    """Hooks of parameters and of the optimizer, and schedulers, see what they would see."""
    seen: list[str] = []
    expected = trained("eager", rule, PLAIN, inside=False, rounds=1)[1:]
    for place in ("parameter", "before", "after", "scheduler"):
        model, x, y = setting()
        network, optimizer = pcgraph.compile(model, backend="inductor"), PLAIN(list(model.parameters()))
        scheduler = None
        if place == "parameter":
            model.first.weight.register_post_accumulate_grad_hook(lambda p: seen.append("parameter"))
        elif place == "before":
            optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        elif place == "after":
            optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        else:
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        network.learn(x, y, squared, rule, optimizer)
        if scheduler is not None:
            scheduler.step()  # warns if there was no step before it
            assert optimizer.param_groups[0]["lr"] == 0.05
        for a, b in zip(expected, model.parameters(), strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-12)
    assert seen == ["parameter", "before", "after"]


def test_an_input_in_a_parameters_memory() -> None:
    """It would change while the first weight learns from it."""
    torch.manual_seed(0)
    model = nn.Linear(3, 3).double()
    twin, y = copy.deepcopy(model), torch.randn(3, 3, dtype=torch.float64)
    optimizer = PLAIN(list(model.parameters()))
    assert Descents().plan(optimizer, list(model.parameters()), [y]) is not None
    assert Descents().plan(optimizer, list(model.parameters()), [model.weight.detach()]) is None
    for rule in RULES:
        pcgraph.compile(model, backend="inductor").learn(model.weight.detach(), y, squared, rule, optimizer)
        other = PLAIN(list(twin.parameters()))
        pcgraph.compile(twin).learn(twin.weight.detach(), y, squared, rule, other)
        torch.testing.assert_close(model.weight, twin.weight, rtol=1e-10, atol=1e-12)
