"""Leaves that lie in one memory, and data that decide out of sight: each leaf its gradient, each call its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

import pcgraph
from tests.integration.test_overlooked import X


class Net(nn.Module):
    def __init__(self, body: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body = body

    def forward(self, *args: Any) -> Tensor:
        return self.body(self, *args)


def learned(model: Any, net: nn.Module, call: Callable[..., Tensor], args: Sequence[Tensor]) -> list[Tensor | None]:
    """Output and gradients of parameters and arguments after one step on copies of the arguments."""
    net.zero_grad()
    own = [arg.detach().clone().requires_grad_(arg.requires_grad) for arg in args]
    output = call(model, *own)
    output.square().sum().backward()  # type: ignore[no-untyped-call]
    return [output.detach(), *(None if t.grad is None else t.grad.clone() for t in (*net.parameters(), *own))]


def assert_equal_steps(
    net: nn.Module, calls: Sequence[Sequence[Tensor]], call: Callable[..., Tensor] = lambda model, *args: model(*args)
) -> Any:
    """Every call by plain autograd and by the network; returns the network."""
    network = pcgraph.compile(net)
    for args in calls:
        plain, ours = learned(net, net, call, args), learned(network, net, call, args)
        assert [t is None for t in plain] == [t is None for t in ours]
        assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True) if a is not None and b is not None)
    return network


# -- two leaves, one memory -----------------------------------------------------------------------------------
def tied_by_data(net: Net) -> None:
    net.b.weight.data = net.a.weight.data


def parameter_of_a_detached_one(net: Net) -> None:
    net.b.weight = nn.Parameter(net.a.weight.detach())


def tied_biases(net: Net) -> None:
    net.b.bias.data = net.a.bias.data


@pytest.mark.parametrize("tie", [tied_by_data, parameter_of_a_detached_one, tied_biases], ids=lambda f: f.__name__)
def test_parameters_in_one_memory_have_a_gradient_each(tie: Callable[[Net], None]) -> None:
    net = Net(lambda net, x: net.b(net.a(x).tanh()))
    tie(net)
    network = assert_equal_steps(net, [[X], [X + 1]])
    network.zero_grad()
    network.step(X, None, lambda output, _: output.square().sum())
    stepped = [p.grad.clone() for p in net.parameters()]  # type: ignore[union-attr]
    net.zero_grad()
    net(X).square().sum().backward()
    assert all(map(torch.equal, stepped, [p.grad for p in net.parameters()]))


def test_a_leaf_on_the_model_in_the_memory_of_a_weight() -> None:
    net = Net(lambda net, x: net.a(x) @ net.extra)
    net.extra = net.a.weight.detach().requires_grad_()  # type: ignore[assignment]
    network = assert_equal_steps(net, [[X], [X]])
    net.extra.grad = None  # type: ignore[assignment]
    network(X).sum().backward()
    ours, net.extra.grad = net.extra.grad, None  # type: ignore[assignment]
    net(X).sum().backward()
    assert torch.equal(ours, net.extra.grad)  # type: ignore[arg-type]


def test_a_leaf_made_inside_keeps_its_gradient_to_itself() -> None:
    assert_equal_steps(Net(lambda net, x: net.a(x) @ nn.Parameter(net.a.weight.detach())), [[X], [X]])


def test_inputs_in_one_memory() -> None:
    wanted = X.clone().requires_grad_()
    net = Net(lambda net, x, y: net.a(x) * y)
    assert_equal_steps(net, [[wanted], [wanted]], lambda model, x: model(x, x.detach().requires_grad_()))
    assert_equal_steps(net, [[wanted]], lambda model, x: model(x, x))


def test_an_input_in_the_memory_of_a_weight() -> None:
    net = Net(lambda net, x: net.a(x))
    assert_equal_steps(net, [[X], [X]], lambda model, _: model(net.a.weight.detach().requires_grad_()))


# -- data that decide out of sight ----------------------------------------------------------------------------
def lengths(*values: int) -> list[Tensor]:
    return [torch.linspace(-1, 1, 48).reshape(3, 4, 4), torch.tensor(values)]


def packed_and_padded(net: Net, x: Tensor, sizes: Tensor) -> Tensor:
    packed = pack_padded_sequence(net.a(x), sizes, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(packed, batch_first=True)[0]


def packed_rows(net: Net, x: Tensor, sizes: Tensor) -> Tensor:
    packed = pack_padded_sequence(net.a(x), sizes, batch_first=True, enforce_sorted=False)
    return packed.data * packed.data.shape[0] + len(packed.batch_sizes)


@pytest.mark.parametrize("body", [packed_and_padded, packed_rows], ids=lambda f: f.__name__)
def test_lengths_of_packed_sequences(body: Callable[..., Tensor]) -> None:
    calls = [lengths(4, 3, 1), lengths(4, 3, 1), lengths(3, 2, 1), lengths(1, 4, 1), lengths(4, 3, 1)]
    network = assert_equal_steps(Net(body), calls)
    assert network.cache_info()["captures"] == 3 and not network.cache_info()["once"]


def test_number_of_entries_of_a_sparse_tensor() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        return net.a(x) * len((x * (x > 0.5)).to_sparse().values())

    assert_equal_steps(Net(body), [[X], [X + 0.3], [X - 0.3], [X]])


def test_what_the_model_catches() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        try:
            factor = torch.linalg.cholesky(x[:, :3] @ x[:, :3].T + torch.eye(3) * x[0, 0])
        except RuntimeError:
            factor = torch.eye(3)
        return factor @ net.a(x)

    network = assert_equal_steps(Net(body), [[X - 1], [X - 1], [X + 1]])
    assert network.cache_info()["captures"] == 3  # where it was caught, the graph is used once
    with pytest.raises(RuntimeError, match="cholesky"):  # a program raises, and nobody inside catches it
        network(X - 1)


@pytest.mark.parametrize("reentrant", [False, True])
def test_questions_inside_of_a_checkpoint(reentrant: bool) -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        return net.b(h).tanh() if h.mean() > 0 else net.b(h)

    low, high = (X - 1).requires_grad_(), (X + 2).requires_grad_()
    assert_equal_steps(
        Net(body),
        [[low], [low], [high], [low]],
        lambda model, x: checkpoint(model, x, use_reentrant=reentrant),
    )


def test_cached_parametrizations() -> None:
    net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)), nn.Tanh())
    net.append(net[0])

    def cached(model: Any, x: Tensor) -> Tensor:
        with parametrize.cached():
            output: Tensor = model(x)
        return output

    network = pcgraph.compile(net)
    for call in (lambda model, x: model(x), cached, lambda model, x: model(x)):
        plain, ours = learned(net, net, call, [X]), learned(network, net, call, [X])
        assert all(map(torch.equal, plain[:-1], ours[:-1]))  # type: ignore[arg-type]


def test_low_memory_where_nothing_is_kept() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.a

    net = Constant()
    pcgraph.compile(net, memory="low")(X).sum().backward()
    assert net.a.grad is not None and torch.equal(net.a.grad, torch.ones(2))


# -- shared in one call, and not in the next ------------------------------------------------------------------
def test_slices_that_were_the_same_once() -> None:
    net = Net(lambda net, x, y: net.a(x) * y)
    network, data = pcgraph.compile(net), torch.linspace(-1, 1, 20).reshape(5, 4)

    def loss(output: Tensor, _: None) -> Tensor:
        return output.square().sum()

    for x, y in ((data[:3], data[:3]), (data[:3], data[1:4]), (data[2:], data[:3]), (data[1:4], data[1:4])):
        for step in (False, True):
            net.zero_grad()
            net(x, y).square().sum().backward()
            expected = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
            net.zero_grad()
            if step:
                network.step((x, y), None, loss)
            else:
                network(x, y).square().sum().backward()
            ours = [p.grad for p in net.parameters()]
            assert all(torch.equal(a, b) for a, b in zip(expected, ours, strict=True) if a is not None)  # type: ignore[arg-type]
    assert network.cache_info()["captures"] == 2  # one of the network, one with the loss


@pytest.mark.parametrize("buffer", [False, True])
def test_a_frozen_copy_that_shared_its_memory_with_a_weight(buffer: bool) -> None:
    net = Net(lambda net, x: net.a(x) @ net.frozen)
    if buffer:
        net.register_buffer("frozen", net.a.weight.detach())
    else:
        net.frozen = net.a.weight.detach()  # type: ignore[assignment]
    network = pcgraph.compile(net)
    for _ in range(3):
        assert torch.equal(learned(network, net, lambda model, x: model(x), [X])[1], net.a.weight.grad)  # type: ignore[arg-type]
        assert torch.equal(network(X), net(X))
        net.a.weight.data = net.a.weight.data - 0.1 * net.a.weight.grad  # type: ignore[operator]


def test_buffers_that_shared_their_memory() -> None:
    net = Net(lambda net, x: net.a(x) * net.u[:1] + net.v[:1])
    net.register_buffer("u", torch.ones(3, 4))
    net.register_buffer("v", net.u.view(3, 4))  # type: ignore[operator]
    network = pcgraph.compile(net)
    assert torch.equal(network(X), net(X))
    net.v.data = torch.zeros(3, 4)  # type: ignore[union-attr]
    assert torch.equal(network(X), net(X))


def test_a_write_to_one_of_two_buffers_in_one_memory() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        with torch.no_grad():
            net.u.add_(1)  # type: ignore[operator]
        return net.a(x) * net.v + net.u  # type: ignore[operator]

    nets = []
    for _ in range(2):
        net = Net(body)
        net.register_buffer("u", torch.ones(3, 4))
        net.register_buffer("v", net.u[:])  # type: ignore[index]
        nets.append(net)
    network = pcgraph.compile(nets[1])
    for _ in range(3):
        assert torch.equal(nets[0](X), network(X))
        assert torch.equal(nets[0].u, nets[1].u) and torch.equal(nets[0].v, nets[1].v)  # type: ignore[arg-type]


MASK = torch.tensor([1.0, 0.0, 1.0, 1.0])


def test_a_tensor_among_globals_and_in_a_list_is_no_reason_to_capture_again() -> None:
    held = [torch.ones(4)]
    net = Net(lambda net, x: net.a(x) * MASK * held[0])
    network = assert_equal_steps(net, [[X], [X], [X]])
    assert network.cache_info()["captures"] == 1
    MASK.mul_(2)
    assert torch.equal(net(X), network(X)) and network.cache_info()["captures"] == 1
    held[0] = torch.zeros(4)
    assert torch.equal(net(X), network(X)) and network.cache_info()["captures"] == 2
    held[0].data = torch.ones(3, 4)
    assert torch.equal(net(X), network(X)) and network.cache_info()["captures"] == 3


def test_the_imaginary_part_of_a_conjugate() -> None:
    net = Net(lambda net, x: net.a(x) * (2.0 if x.is_neg() else 1.0))
    z = torch.complex(X, X)
    assert_equal_steps(net, [[X]], lambda model, _: model(z.imag))
    network = pcgraph.compile(net)
    for x in (z.imag, z.conj().imag, z.imag):
        assert torch.equal(net(x), network(x))


def test_a_buffer_that_numpy_reads_and_torch_writes() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        net.u.numpy()  # type: ignore[operator]
        net.u.add_(1)  # type: ignore[operator]
        return net.a(x) + net.u  # type: ignore[operator]

    nets = []
    for _ in range(2):
        net = Net(body)
        net.register_buffer("u", torch.ones(3, 4))
        nets.append(net)
    network = pcgraph.compile(nets[1])
    for _ in range(2):
        assert torch.equal(nets[0](X), network(X)) and torch.equal(nets[0].u, nets[1].u)  # type: ignore[arg-type]


def test_an_input_with_a_history_whose_shape_is_read_first() -> None:
    scale = torch.ones(4, requires_grad=True)
    net = Net(lambda net, x: net.a(x.view(x.shape[0], -1)))
    network = pcgraph.compile(net)
    for _ in range(2):
        assert torch.equal(net(X * scale), network(X * scale))
