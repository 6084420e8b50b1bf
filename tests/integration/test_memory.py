"""``memory="low"``: the same gradients, buffers and random numbers to the bit, and fewer bytes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph
from pcgraph.codegen.program import Program
from pcgraph.codegen.rematerialise import INSIDE, OUTSIDE
from pcgraph.measure import peak_memory
from tests.equality import Pair, assert_exact, difference
from tests.zoo import ZOO

low = functools.partial(pcgraph.compile, memory="low")
SAMPLE = (
    *(
        "mlp_dropout",
        "mlp_batch_norm",
        "resnet18",
        "gpt_dropout",
        "lstm_by_hand",
        "spectral_norm",
        "checkpointed_blocks",
    ),
    *("outputs_at_several_depths", "momentum_teacher", "straight_through", "inplace_residual", "random_draws"),
)
OTHERS = sorted(ZOO.keys() - set(SAMPLE))


pytestmark = pytest.mark.usefixtures("one_thread")


class Block(nn.Module):
    """Everything that is cheap to evaluate again, and dropout, which is not evaluated again."""

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        return x + F.dropout(self.down(F.gelu(self.up(self.norm(x)))), self.dropout, self.training)


def blocks(depth: int = 6, width: int = 32, dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(width, dropout) for _ in range(depth)), nn.Linear(width, 3))


def program(network: Any) -> Program:
    found: Program = network._last().compiled.program
    return found


def again(network: Any) -> list[str]:
    """Vertices that learning evaluates once more."""
    return [part.vertex for segment in program(network).learn_lines for part in segment.parts if part.again]


@pytest.mark.parametrize("name", SAMPLE)
def test_bitwise(name: str) -> None:
    assert_exact(ZOO[name], steps=2, compiler=low)


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, d) for n in OTHERS for d in ZOO[n].dtypes] + [(n, d) for n in SAMPLE for d in ZOO[n].dtypes[1:]],
)
def test_bitwise_the_whole_zoo(name: str, dtype: torch.dtype) -> None:
    assert_exact(ZOO[name], dtype, steps=2, compiler=low)


def test_train_eval_train_and_other_batch_sizes() -> None:
    case = ZOO["mlp_batch_norm"]
    pair = Pair(case, compiler=low)
    assert case.rebatch is not None
    pair.step(seed=1)
    pair.mode(False)
    pair.step(seed=2)
    pair.mode(True)
    pair.step(case.rebatch(pair.args), seed=3)


def trained(
    net: Any, parameters: list[nn.Parameter], x: Tensor, learn: Callable[[Tensor], None]
) -> list[Tensor | None]:
    torch.manual_seed(5)
    for parameter in parameters:
        parameter.grad = None
    learn(net(x).square().sum())
    return [*(p.grad for p in parameters), torch.get_rng_state()]


def assert_same(learn: Callable[[Tensor], None], model: nn.Module | None = None) -> Any:
    """What autograd makes of it, low memory makes of it; returns the network."""
    model = blocks() if model is None else model
    twin = copy.deepcopy(model)
    network = low(twin)
    x = torch.randn(64, 32)
    for one, two in zip(
        trained(model, list(model.parameters()), x, learn),
        trained(network, list(twin.parameters()), x, learn),
        strict=True,
    ):
        assert difference(one, two) is None
    assert again(network)
    return network


def test_something_is_evaluated_again_and_nothing_random() -> None:
    network = assert_same(lambda loss: loss.backward())
    sources = network.sources
    assert "bernoulli" not in sources["learn"]
    names = {part.vertex for segment in program(network).learn_lines for part in segment.parts if part.again}
    assert any(name.startswith("gelu") for name in names)
    assert any(name.startswith("layer_norm") for name in names)


def test_learning_twice_from_one_prediction() -> None:
    def twice(loss: Tensor) -> None:
        loss.backward(retain_graph=True)
        loss.backward()

    assert_same(twice)


def test_other_settings_while_learning() -> None:
    """What is evaluated again is evaluated as it was, and the settings are those of the caller afterwards."""

    def learn(loss: Tensor) -> None:
        torch.set_num_threads(2)
        torch.set_float32_matmul_precision("medium")
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            loss.backward()
            assert torch.get_num_threads() == 2 and torch.get_float32_matmul_precision() == "medium"
            assert torch.are_deterministic_algorithms_enabled()
        finally:
            torch.set_num_threads(1)
            torch.set_float32_matmul_precision("highest")
            torch.use_deterministic_algorithms(False)

    assert_same(learn)


def test_autocast_while_learning_does_not_reach_the_prediction() -> None:
    """The values that come out of evaluating again are those of full precision, whatever is around."""
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(8) for m in (nn.Linear(32, 32), nn.Tanh())))
    network = low(model, example_inputs=(torch.ones(64, 32),))
    assert again(network)
    loss = network(torch.randn(64, 32)).sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()
        assert torch.is_autocast_enabled("cpu")
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_settings_are_put_back_after_a_failure() -> None:
    model = blocks(dropout=0.0)
    network = low(model)
    loss = network(torch.randn(64, 32)).sum()
    begin, end = INSIDE, OUTSIDE
    assert f"{end} = " in network.sources["learn"] and begin in program(network).saved[0]
    run = loss.grad_fn.next_functions[0][0].run
    place = program(network).saved[0].index(next(n for n in program(network).saved[0] if n.startswith("x_add")))
    run._saved[0][place] = torch.ones(1, 1)  # of a wrong shape: a kernel complains
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError):
            loss.backward()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_parameter_that_changes_in_between_is_refused() -> None:
    """A bias is nothing that backprop reads, so autograd would not mind; evaluating again would be wrong."""
    model = blocks(dropout=0.0)
    network = low(model)
    loss = network(torch.randn(64, 32)).sum()
    with torch.no_grad():
        model[0].up.bias.add_(1.0)
    assert "x_0_up_bias" in "".join(program(network).saved[0]) or "x__0_up_bias" in program(network).saved[0]
    with pytest.raises(RuntimeError, match="memory='low'"):
        loss.backward()


def test_two_calls_before_learning() -> None:
    """Batch norm's running statistics move in between, and are not read again."""
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU())]
    model = nn.Sequential(*layers)
    twin = copy.deepcopy(model)
    found = []
    for net in (model, low(twin)):
        torch.manual_seed(1)
        x = torch.randn(64, 32)
        losses = [net(x).sum(), net(2 * x + 1).square().sum()]
        for loss in losses:
            loss.backward()
        found.append([*(p.grad for p in net.parameters()), *net.buffers()])
    assert [difference(one, two) for one, two in zip(*found, strict=True)] == [None] * len(found[0])


class Moving(nn.Module):
    """Between its layers a buffer is used, then written to."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.body = nn.ModuleList(nn.Linear(32, 32) for _ in range(6))
        self.register_buffer("scale", torch.ones(32))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body:
            x = nn.functional.gelu(self.use(layer(x), self.scale))
            with torch.no_grad():
                self.scale.mul_(1.1)
        return x


def test_a_buffer_that_is_written_is_not_read_again() -> None:
    """Autograd keeps no buffer that is added; evaluating the sum again would read what was written since."""
    model = Moving(torch.add)
    twin = copy.deepcopy(model)
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    for net in (model, low(twin)):
        for _ in range(2):
            net(x).sum().backward()
    assert torch.equal(model.scale, twin.scale)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_what_autograd_refuses_is_refused() -> None:
    model = Moving(torch.mul)  # autograd keeps the buffer, and finds it changed
    x = torch.randn(16, 32)
    for net in (model, low(copy.deepcopy(model))):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            net(x).sum().backward()


def test_errors_can_be_watched() -> None:
    model = blocks(dropout=0.0)
    seen = []
    x = torch.randn(64, 32)
    for network in (pcgraph.compile(model), low(model)):
        with network.watch("gelu*") as errors:
            network(x).sum().backward()
        seen.append(dict(errors))
    assert seen[0].keys() == seen[1].keys() and seen[0]
    assert all(torch.equal(error, seen[1][name]) for name, error in seen[0].items())


def test_a_step_in_one_call() -> None:
    model = blocks()
    x, y = torch.randn(64, 32), torch.randint(0, 3, (64,))
    found = []
    for network in (pcgraph.compile(copy.deepcopy(model)), low(copy.deepcopy(model))):
        torch.manual_seed(3)
        loss = network.step(x, y, F.cross_entropy)
        found.append([loss, *(p.grad for p in network.parameters()), torch.get_rng_state()])
    assert [difference(one, two) for one, two in zip(*found, strict=True)] == [None] * len(found[0])


def test_an_unknown_memory_is_refused() -> None:
    with pytest.raises(pcgraph.PCGraphError, match="memory must be"):
        pcgraph.compile(nn.Linear(2, 2), memory="lowest")


def peak(net: Any, x: Tensor) -> int:
    def step() -> None:
        net(x).square().sum().backward()
        net.zero_grad()

    step()
    return peak_memory(step)


def test_memory_is_saved() -> None:
    """Bytes, not seconds: torch's allocation events, the same at every run."""
    model = blocks(8, 64)
    x = torch.randn(512, 64)
    backprop, network = peak(model, x), peak(low(model), x)
    assert network < 0.6 * backprop, network / backprop
    assert peak(pcgraph.compile(model), x) <= 1.01 * backprop


def test_only_with_the_eager_back_end() -> None:
    with pytest.raises(pcgraph.PCGraphError, match="inductor"):
        pcgraph.compile(nn.Linear(2, 2), memory="low", backend="inductor")
