"""`PCNetwork.step`: the loss inside of the network, no engine, and the very same gradients."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph
from pcgraph.runtime import step as module
from tests.equality import difference, own_copy
from tests.zoo import ZOO, Case, seed_all


def everything(model: nn.Module, args: tuple[Any, ...], value: Tensor) -> dict[str, Any]:
    """What a step leaves behind."""
    seen: dict[str, Any] = {"loss": value.detach().clone(), "random state": torch.get_rng_state()}
    for name, parameter in model.named_parameters():
        seen[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        strided = parameter.grad is not None and parameter.grad.layout is torch.strided
        seen[f"strides of {name}"] = parameter.grad.stride() if strided else None  # type: ignore[union-attr]
    seen |= {f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}
    seen |= {f"argument {k}": arg.detach().clone() for k, arg in enumerate(args) if isinstance(arg, Tensor)}
    seen |= {f"gradient of argument {k}": arg.grad for k, arg in enumerate(args) if isinstance(arg, Tensor)}
    return seen


@pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in ZOO.items() if not c.keywords()])
def test_three_steps_that_add_up(case: Case) -> None:
    model, args, _ = case.build()
    twin = copy.deepcopy(model)
    network = pcgraph.compile(twin)

    def loss(output: Any, target: None) -> Tensor:
        return case.loss(output)

    def plainly(args: tuple[Any, ...]) -> Tensor:
        value = case.loss(model(*args))
        value.backward()  # type: ignore[no-untyped-call]
        return value

    (enabled, *_) = torch.backends.mkldnn.set_flags(_enabled=not case.native)
    try:
        for seed in range(3):
            mine, theirs = own_copy(args), own_copy(args)
            seed_all(seed)
            expected = everything(model, mine, plainly(mine))
            seed_all(seed)
            got = everything(twin, theirs, network.step(theirs, None, loss))
            assert got.keys() == expected.keys()
            for name, value in expected.items():
                assert difference(value, got[name]) is None, name
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.shift = nn.Parameter(torch.zeros(5, 2))
        self.other = nn.Parameter(torch.ones(5, 2))
        self.b = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x).tanh())
        return y + self.shift + self.other


X, Y = torch.linspace(-1, 1, 15).view(5, 3), torch.tensor([0, 1, 1, 0, 1])


def pair() -> tuple[Net, Any]:
    torch.manual_seed(0)
    net = Net()
    return net, pcgraph.compile(copy.deepcopy(net))


def grads(net: nn.Module) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts calls of autograd's engine."""
    calls: list[int] = []
    backward = Tensor.backward

    def counted(self: Tensor, *args: Any, **kwargs: Any) -> None:
        calls.append(1)
        backward(self, *args, **kwargs)

    monkeypatch.setattr(Tensor, "backward", counted)
    return calls


def test_without_the_engine(engine: list[int]) -> None:
    net, network = pair()
    for _ in range(2):
        value = network.step(X, Y, F.cross_entropy)
    assert not engine
    for _ in range(2):
        expected = F.cross_entropy(net(X), Y)
        expected.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(value, expected) and not value.requires_grad
    assert len(grads(network)) == 6
    assert all(map(torch.equal, grads(net), grads(network)))


def test_two_leaves_with_the_same_error_do_not_share_a_gradient() -> None:
    net, network = pair()
    F.cross_entropy(net(X), Y).backward()  # type: ignore[no-untyped-call]
    network.step(X, Y, F.cross_entropy)
    assert network.shift.grad.data_ptr() != network.other.grad.data_ptr()
    network.shift.grad.zero_()
    assert torch.equal(network.other.grad, net.other.grad)  # type: ignore[arg-type]


class Squeezed(nn.Module):
    """Gradients of three parameters that are views of one error."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.a.squeeze() + self.b.squeeze() + self.c + x.sum()


def test_gradients_that_are_views_of_one_error_add_up_on_their_own() -> None:
    """Plain autograd gives `a` and `b` one memory here, and its second step adds both errors to both."""
    network = pcgraph.compile(Squeezed())
    for calls in (1.0, 2.0, 3.0):
        network.step(torch.ones(3), None, lambda output, _: output)
        assert [p.grad.item() for p in network.parameters()] == [calls] * 3


@pytest.mark.parametrize("look", [lambda leaf: leaf, lambda leaf: leaf.view(1)[0], lambda leaf: leaf.view(1)])
def test_a_loss_that_is_a_leaf_or_a_view_of_one(look: Any) -> None:
    model = nn.Linear(1, 1, bias=False)
    network = pcgraph.compile(model)
    for calls in (1.0, 2.0):
        value = network.step(torch.ones(1, 1), None, lambda *_: look(model.weight))
        assert not value.requires_grad and value.item() == model.weight.item()
        assert model.weight.grad is not None and model.weight.grad.item() == calls


def test_overlapping() -> None:
    memory = torch.zeros(12)
    gradients = [memory[:4], memory[4:8], memory[7:], memory[:0], None, torch.zeros(4), memory[1:2]]
    assert module._overlapping(gradients) == [True, True, True, False, False, False, True]
    same = torch.zeros(())
    assert module._overlapping([same, same, same.view(1), torch.zeros(1)]) == [True, True, True, False]


def hooked(net: Any) -> list[str]:
    log: list[str] = []
    net.shift.register_hook(lambda g: log.append("hook") or g * 2)
    net.a.weight.register_post_accumulate_grad_hook(lambda p: log.append("after"))
    return log


def test_hooks_fire_and_inputs_hand_on(engine: list[int]) -> None:
    nets = pair()
    logs = [hooked(net) for net in nets]
    before = [torch.ones(3, requires_grad=True) for _ in nets]
    F.cross_entropy(nets[0](X * before[0]), Y).backward()  # type: ignore[no-untyped-call]
    nets[1].step(X * before[1], Y, F.cross_entropy)
    assert sorted(logs[0]) == sorted(logs[1]) == ["after", "hook"]
    assert all(map(torch.equal, grads(nets[0]), grads(nets[1])))
    assert torch.equal(before[0].grad, before[1].grad)  # type: ignore[arg-type]


def test_arguments_by_tuple_and_by_name() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> Tensor:
            return x * self.w * scale

    network = pcgraph.compile(Two())
    target = torch.zeros(5, 3)
    for inputs in ((X, 2.0), {"x": X, "scale": 2.0}):
        network.w.grad = None
        network.step(inputs, target, F.mse_loss)
        plain = Two()
        F.mse_loss(plain(X, 2.0), target).backward()  # type: ignore[no-untyped-call]
        assert torch.equal(network.w.grad, plain.w.grad)  # type: ignore[arg-type]


def test_channels_last_weights_get_gradients_of_their_layout() -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 2)).to(
        memory_format=torch.channels_last
    )
    network = pcgraph.compile(copy.deepcopy(model))
    x = torch.randn(5, 8, 6, 6)
    for inputs in (x, x.to(memory_format=torch.channels_last)):
        F.cross_entropy(model(inputs), Y).backward()  # type: ignore[no-untyped-call]
        network.step(inputs, Y, F.cross_entropy)
    for mine, theirs in zip(grads(model), grads(network), strict=True):
        assert torch.equal(mine, theirs) and mine.stride() == theirs.stride()


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(2.0))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output / self.temperature, target)

    def method(self, output: Tensor, target: Tensor) -> Tensor:
        return self(output, target) * 2


def test_a_loss_that_learns_and_losses_by_turns() -> None:
    net, network = pair()
    smooth = Smooth()
    for loss in (smooth, smooth.method, F.cross_entropy, smooth.method):
        chosen: Callable[..., Tensor] = loss
        network.step(X, Y, chosen)
    got, smooth.temperature.grad = smooth.temperature.grad, None
    for loss in (smooth, smooth.method, F.cross_entropy, smooth.method):
        loss(net(X), Y).backward()
    assert torch.equal(got, smooth.temperature.grad)  # type: ignore[arg-type]
    assert all(map(torch.equal, grads(net), grads(network)))
    assert network.cache_info()["captures"] == 3
    assert network.cache_info()["hits"] == 1


def test_errors_can_be_watched() -> None:
    _, network = pair()
    with network.watch("model.b") as errors:
        network.step(X, Y, F.cross_entropy)
    assert [error.shape for error in errors.values()] == [(5, 2)]
    network.step(X, Y, F.cross_entropy)
    assert len(errors) == 1


def test_under_autocast() -> None:
    net, network = pair()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            F.cross_entropy(net(X), Y).backward()  # type: ignore[no-untyped-call]
            network.step(X, Y, F.cross_entropy)
    assert all(map(torch.equal, grads(net), grads(network)))


def test_what_cannot_be_a_step_is_refused() -> None:
    _, network = pair()
    with pytest.raises(pcgraph.PCGraphError, match=r"one real number, not torch.float32 of shape \[5, 2\]"):
        network.step(X, None, lambda output, target: output)
    with pytest.raises(pcgraph.PCGraphError, match="not a float"):
        network.step(X, None, lambda output, target: output.sum().item())
    with pytest.raises(pcgraph.PCGraphError, match="complex64"):
        network.step(X, None, lambda output, target: output.sum().to(torch.complex64))
    with torch.no_grad(), pytest.raises(pcgraph.PCGraphError, match="switched off"):
        network.step(X, Y, F.cross_entropy)
    network.requires_grad_(False)
    with pytest.raises(pcgraph.PCGraphError, match="neither a parameter nor an input"):
        network.step(X, Y, F.cross_entropy)


def test_a_copy_has_losses_of_its_own() -> None:
    _, network = pair()
    network.step(X, Y, F.cross_entropy)
    twin = copy.deepcopy(network)
    twin.zero_grad()
    twin.step(X, Y, F.cross_entropy)
    assert all(map(torch.equal, grads(network), grads(twin)))
    assert twin.a.weight.grad is not network.a.weight.grad


def test_dense_or_not() -> None:
    full = torch.empty(2, 3, 4)
    assert module._dense(full) and module._dense(full.permute(2, 0, 1)) and module._dense(full[:1, :, :])
    assert (
        not module._dense(full[:, :2])
        and not module._dense(full[..., ::2])
        and not module._dense(full[:, :1].expand(2, 3, 4))
    )


def double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 2


def test_what_is_set_on_the_network_is_refused_and_on_the_model_takes_part() -> None:
    net, network = pair()
    handle = network.register_forward_hook(double)
    with pytest.raises(pcgraph.PCGraphError, match=r"set on the network.*\n.*pcn.module"):
        network.step(X, Y, F.cross_entropy)
    handle.remove()
    log: list[int] = []
    for model in (net, network.module):
        model.register_forward_hook(double)
        model.b.register_full_backward_hook(lambda *_: log.append(1))
    expected = F.cross_entropy(net(X), Y)
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.equal(network.step(X, Y, F.cross_entropy), expected)
    assert all(map(torch.equal, grads(net), grads(network)))
    assert len(log) == 2
    network.forward = lambda x: x
    with pytest.raises(pcgraph.PCGraphError, match="set on the network"):
        network.step(X, Y, F.cross_entropy)


def test_hooks_on_all_modules_fire_once() -> None:
    net, network = pair()
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output * 2 if isinstance(output, Tensor) and output.dim() else None
    )
    try:
        assert torch.equal(net(X), network(X))
        expected = F.cross_entropy(net(X), Y)
        assert torch.equal(network.step(X, Y, F.cross_entropy), expected)
    finally:
        handle.remove()
    assert torch.equal(net(X), network(X))


@dataclasses.dataclass
class Weighted:
    size: int = 1
    weights: list[float] = dataclasses.field(default_factory=list, compare=False)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) * self.weights[0]


def test_equal_losses_are_not_the_same() -> None:
    net, network = pair()
    for loss in (Weighted(1, [1.0]), Weighted(1, [5.0])):
        assert torch.equal(network.step(X, Y, loss), loss(net(X), Y))


def test_sparse_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Embedding(6, 3, sparse=True)
    network = pcgraph.compile(copy.deepcopy(model))
    index, target = torch.tensor([1, 2, 2]), torch.zeros(3, 3)
    for _ in range(2):
        F.mse_loss(model(index), target).backward()  # type: ignore[no-untyped-call]
        network.step(index, target, F.mse_loss)
    assert network.weight.grad.is_sparse
    assert torch.equal(model.weight.grad.to_dense(), network.weight.grad.to_dense())  # type: ignore[union-attr]
