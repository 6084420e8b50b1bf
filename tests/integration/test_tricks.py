"""What models do inside ``forward`` that is no arithmetic: they recognise, mark, freeze, hook, and count.

The plain model and the network each live through the same script in a world of their own, and must tell the same story.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pcgraph
from pcgraph.errors import CaptureError
from tests.equality import difference


def data(seed: int, *shape: int) -> Tensor:
    return torch.randn(*(shape or (3, 4)), generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.body, self.calls, self.flag, self.previous, self.log = body, 0, True, None, []
        self.register_buffer("memory", torch.zeros(3, 4))

    def forward(self, *args: Any) -> Any:
        return self.body(self, *args)


Script = Callable[[Any, Net], Iterator[Any]]


def same_story(body: Callable[..., Any], script: Script) -> pcgraph.PCNetwork:
    """Run a script with the model and with the network, and compare everything that it tells."""
    plain, twin = Net(body), Net(body)
    network = pcgraph.compile(twin)
    for number, (one, two) in enumerate(zip(script(plain, plain), script(network, twin), strict=True)):
        leaves = tree_leaves(one), tree_leaves(two)
        assert len(leaves[0]) == len(leaves[1])
        for a, b in zip(*leaves, strict=True):
            message = difference(a, b)
            assert message is None, f"part {number}: {message}"
    return network


def learn(net: Any, model: Net, *args: Any, seed: int = 0) -> Any:
    """One step of learning: what is returned, and every gradient and buffer."""
    model.zero_grad()
    torch.manual_seed(seed)
    output = net(*args)
    sum(t.square().sum() for t in tree_leaves(output) if isinstance(t, Tensor)).backward()  # type: ignore[union-attr]
    gradients = [p.grad for p in model.parameters()]
    return [output, gradients, [p.requires_grad for p in model.parameters()], list(model.buffers())]


def steps(net: Any, model: Net) -> Iterator[Any]:
    for seed in range(5):
        yield learn(net, model, data(seed), seed=seed)


# -- recognising tensors -----------------------------------------------------------------------------------
def recognises(net: Net, x: Tensor) -> Tensor:
    known = x is net.previous
    net.previous, net.log = x, [(x, 1)]
    return net.a(x) * (2 if known else 1)


def test_an_argument_is_the_object_that_it_was() -> None:
    def script(net: Any, model: Net) -> Iterator[Any]:
        leaf = data(2).requires_grad_()
        for x in (data(0), data(1), data(3, 6, 4)[:3], leaf, leaf.detach()):
            for _ in range(3):
                yield [learn(net, model, x), model.previous is x, model.log[0][0] is x]
            if x is leaf:
                model.previous.square().sum().backward()  # type: ignore[attr-defined]
                yield leaf.grad

    same_story(recognises, script)


def test_an_argument_may_be_a_parameter_or_a_buffer() -> None:
    def body(net: Net, x: Tensor, w: Tensor) -> Tensor:
        net.memory.add_(1)
        factor = (2 if w is net.a.weight else 1) * (3 if isinstance(w, nn.Parameter) else 1)
        return (net.a(x) * net.memory + x) @ w * factor

    def script(net: Any, model: Net) -> Iterator[Any]:
        for w in (data(1, 4, 4), model.a.weight, model.b.weight, nn.Parameter(data(3, 4, 4)), data(2, 4, 4)):
            for x in (data(4), model.memory, data(5), model.memory[:]):
                yield learn(net, model, x, w)

    same_story(body, script)


def test_an_argument_that_the_model_was_given_before() -> None:
    def script(net: Any, model: Net) -> Iterator[Any]:
        kept = model.previous = data(9)
        for x in (data(1), data(2), kept, data(3), kept):
            yield learn(net, model, x)

    same_story(lambda net, x: net.a(x) * (2 if x is net.previous else 1), script)


def test_what_an_argument_carries() -> None:
    """Its gradient, hooks that the model registers on it, and attributes that it puts there."""

    def body(net: Net, x: Tensor) -> Tensor:
        x.register_hook(lambda g: net.log.append(g.clone()))
        x.seen = getattr(x, "seen", 0) + 1  # type: ignore[attr-defined]
        return net.a(x) * (2 if x.grad is not None else 1) * x.seen  # type: ignore[attr-defined]

    def script(net: Any, model: Net) -> Iterator[Any]:
        for x in (data(0).requires_grad_(), data(1).requires_grad_()):
            for _ in range(3):
                yield [learn(net, model, x), x.grad, x.seen, list(model.log)]  # type: ignore[attr-defined]

    same_story(body, script)


def test_a_write_with_a_gradient_to_an_argument() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        return net.b(x.mul_(net.a.weight[0]))

    def script(net: Any, model: Net) -> Iterator[Any]:
        for seed in range(3):
            for x in (data(seed), data(seed, 6, 4)[:3], data(seed).detach()):
                yield [learn(net, model, x), x, x.requires_grad, x.is_leaf]

    same_story(body, script)


def test_a_write_to_arguments_that_share_memory_is_refused() -> None:
    x = data(0)
    network = pcgraph.compile(Net(lambda net, x, y: net.b(x.mul_(net.a.weight[0])) + y))
    with pytest.raises(CaptureError, match="shares memory with another"):
        network(x, x[:])


def test_a_parameter_is_marked() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        weight: Any = net.a.weight
        weight.uses = getattr(weight, "uses", 0) + 1
        return net.a(x) * weight.uses

    same_story(body, steps)


def clears(net: Net, x: Tensor) -> Tensor:
    for parameter in net.parameters():
        parameter.grad = None
    return net.a(x)


def presets(net: Net, x: Tensor) -> Tensor:
    net.b.weight.grad = torch.ones(4, 4) * x[0, 0]
    return net.a(x) @ net.b.weight


@pytest.mark.parametrize("body", [clears, presets])
def test_gradients_are_set_inside(body: Any) -> None:
    def script(net: Any, model: Net) -> Iterator[Any]:
        for seed in range(4):
            net(data(seed)).square().sum().backward()
            yield [p.grad for p in model.parameters()]

    same_story(body, script)


def test_whether_an_argument_is_a_view() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        return net.a(x) * (2 if x._is_view() else 1) * (3 if x._base is not None else 1)

    def script(net: Any, model: Net) -> Iterator[Any]:
        for x in (data(0), data(1, 6, 4)[:3], data(2), data(3, 6, 4)[:3]):
            yield learn(net, model, x)

    same_story(body, script)


# -- attributes on what is returned ------------------------------------------------------------------------
def test_attributes_of_returned_tensors() -> None:
    def plain(net: Net, x: Tensor) -> Tensor:
        y: Any = net.a(x)
        y.tag, y.size_of = "logits", x.shape
        return y  # type: ignore[no-any-return]

    def script(net: Any, model: Net) -> Iterator[Any]:
        for seed in range(3):
            y = net(data(seed))
            yield [y.tag, y.size_of]

    assert same_story(plain, script).cache_info()["captures"] == 1

    def rich(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        y: Any = net.a(x)
        y.mask, y.loss, y.parts = x > 0, y.sum() * 2, [x * 2]
        return y, net.b(y)

    def script_of_tensors(net: Any, model: Net) -> Iterator[Any]:
        for seed in range(3):
            model.zero_grad()
            y, z = net(data(seed))
            (y.sum() + y.loss.square() + z.sum()).backward()
            yield [y.mask, y.loss, y.parts, [p.grad for p in model.parameters()]]

    same_story(rich, script_of_tensors)


# -- freezing ----------------------------------------------------------------------------------------------
def by_schedule(net: Net, x: Tensor) -> Tensor:
    net.calls += 1
    for p in net.a.parameters():
        p.requires_grad = net.calls > 2
    return net.b(net.a(x).tanh())


def by_flag(net: Net, x: Tensor) -> Tensor:
    net.a.weight.requires_grad_(net.flag)
    return net.b(net.a(x).tanh())


def by_itself(net: Net, x: Tensor) -> Tensor:
    net.a.weight.requires_grad_(not net.a.weight.requires_grad)
    return net.b(net.a(x))


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def for_one_use(net: Net, x: Tensor) -> Tensor:
    h = net.a(net.b(x))
    with frozen(net.a):
        h = net.a(h)
    return net.a(h.tanh())


def flag_steps(net: Any, model: Net) -> Iterator[Any]:
    for flag in (True, False, False, True, True, False):
        model.flag = flag
        yield learn(net, model, data(1))


@pytest.mark.parametrize(
    ("body", "script"), [(by_schedule, steps), (by_flag, flag_steps), (by_itself, steps), (for_one_use, steps)]
)
def test_freezing_inside(body: Any, script: Script) -> None:
    network = same_story(body, script)
    if body is for_one_use:
        assert network.cache_info()["captures"] == 1


def test_freezing_too_late_is_refused() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        net.a.weight.requires_grad_()
        return net.a(h)

    model = Net(body)
    model.a.weight.requires_grad_(False)
    with pytest.raises(CaptureError, match="after using it"):
        pcgraph.compile(model)(data(0))


# -- side effects happen once ------------------------------------------------------------------------------
def force(net: Net, x: Tensor) -> Tensor:
    net.calls += 1
    net.log.append(net.calls)
    inner = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.a(inner).sin().sum(), inner, create_graph=True)
    return gradient * net.calls * len(net.log)


def test_a_model_that_differentiates_counts_its_calls_once() -> None:
    same_story(force, steps)


def test_what_cannot_be_undone_is_done_once_more_and_told() -> None:
    counts: list[int] = []

    def body(net: Net, x: Tensor) -> Tensor:
        counts.append(1)
        return force(net, x) * len(counts)

    network = pcgraph.compile(Net(body))
    with pytest.raises(CaptureError, match="second time"):
        network(data(0))
    counts.clear()
    network(data(0))
    assert len(counts) == 1


def test_an_iterator_that_the_run_may_have_advanced() -> None:
    model = Net(lambda net, x: force(net, x) * next(net.previous))
    model.previous = (float(k) for k in range(9))
    network = pcgraph.compile(model)
    with pytest.raises(CaptureError, match="advanced"):
        network(data(0))
    network(data(0)).sum().backward()


# -- states that hang on the call before -------------------------------------------------------------------
def detached_later(net: Net, x: Tensor) -> Tensor:
    """Truncated backpropagation through time: the state is kept as it is, and detached where it is used."""
    h = net.a(x)
    before = 0 if net.previous is None else (net.previous * 0.9).detach()
    net.previous = before + h.mean(0)
    net.memory = h * 0.1 + net.memory.detach()
    return net.b(h - net.previous) * net.memory


def test_a_state_that_is_detached_where_it_is_used() -> None:
    same_story(detached_later, steps)


def test_an_argument_with_a_history_that_is_not_used() -> None:
    def script(net: Any, model: Net) -> Iterator[Any]:
        hidden = data(0)
        for seed in range(3):
            model.zero_grad()
            y, hidden = net(data(seed), hidden)
            y.square().sum().backward()
            yield [y, hidden, [p.grad for p in model.parameters()]]

    def body(net: Net, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        h = net.a(x) + hidden.detach()
        return net.b(h), h

    same_story(body, script)


# -- hooks on autograd's own graph -------------------------------------------------------------------------
def hooks_function(net: Net, x: Tensor) -> Tensor:
    h = net.a(x).tanh()
    h.grad_fn.register_hook(lambda below, above: None)  # type: ignore[union-attr]
    return h


def hooks_further_down(net: Net, x: Tensor) -> Tensor:
    h = net.a(x).tanh()
    h.grad_fn.next_functions[0][0].register_prehook(lambda above: None)  # type: ignore[union-attr]
    return h


def hooks_several(net: Net, x: Tensor) -> Tensor:
    h = net.a(x)
    k = h.sin()
    torch.autograd.graph.register_multi_grad_hook((h, k), lambda gradients: None)
    return h * k


def reshapes_argument(net: Net, x: Tensor) -> Tensor:
    return net.a(x.unsqueeze_(0))


def reshapes_buffer(net: Net, x: Tensor) -> Tensor:
    return net.a(x) + net.memory.t_().t()


def writes_out(net: Net, x: Tensor) -> Tensor:
    values, places = torch.empty(3, 2), torch.empty(3, 2, dtype=torch.long)
    torch.topk(x, 2, out=(values, places))
    return net.a(x) * values.sum() + places.sum()


def writes_real(net: Net, x: Tensor) -> Tensor:
    z = torch.complex(net.a(x), net.b(x))
    z.real.mul_(2)
    return z.abs()


class Doubling(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {})) * 2


def enters_mode(net: Net, x: Tensor) -> Tensor:
    with Doubling():
        return x * net.a.bias


def goes_forward(net: Net, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x * 2)
        return forward_ad.unpack_dual(net.a(dual).sin()).tangent  # type: ignore[no-any-return]


def takes_branch(net: Net, x: Tensor) -> Tensor:
    result: Tensor = torch.cond(x.sum() > 0, lambda h: net.a(h).sin(), lambda h: net.b(h).cos(), (x,))
    return result


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (hooks_function, "gradient function's register_hook"),
        (hooks_further_down, "gradient function's register_prehook"),
        (hooks_several, "register_multi_grad_hook"),
        (reshapes_argument, "changes the shape"),
        (reshapes_buffer, "changes the shape"),
        (writes_out, "several tensors at once"),
        (writes_real, "view of another dtype"),
        (enters_mode, "dispatch mode"),
        (goes_forward, "forward mode"),
        (takes_branch, "higher-order operator cond"),
    ],
)
def test_refused_with_the_line(body: Any, message: str) -> None:
    x = data(0)
    with pytest.raises(CaptureError, match=message) as error:
        pcgraph.compile(Net(body))(x)
    line = body.__code__.co_firstlineno
    assert error.value.hint and "test_tricks.py" in str(error.value)
    assert any(f"test_tricks.py:{n}" in str(error.value) for n in range(line, line + 6))
    assert x.shape == (3, 4) and not x.requires_grad


def test_reading_gradient_functions_is_fine() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        function: Any = h.grad_fn
        return h * (2 if x.grad_fn is None else 1) * len(function.name()) * len(function.next_functions)

    assert same_story(body, steps).cache_info()["captures"] == 1


def test_a_parameters_own_node_may_be_hooked() -> None:
    def body(net: Net, x: Tensor) -> Tensor:
        weight = net.a.weight
        node = weight.view_as(weight).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        node.register_hook(lambda below, above: net.log.append(1))
        net.previous = node
        return net.a(x)

    def script(net: Any, model: Net) -> Iterator[Any]:
        for seed in range(3):
            yield [learn(net, model, data(seed)), list(model.log)]

    same_story(body, script)


def test_split_at_places_that_a_tensor_holds() -> None:
    def body(net: Net, x: Tensor) -> list[Tensor]:
        many = (x[:, 0] > 0).sum()
        p, q = net.a(x).tensor_split(many[None])
        return [p.sum(), q * 2, *torch.tensor_split(net.b(x), tensor_indices_or_sections=torch.tensor(2), dim=1)]

    same_story(body, steps)


# -- other threads -----------------------------------------------------------------------------------------
def test_another_thread_is_left_alone() -> None:
    """Hooks on saved tensors, checkpoints and module hooks of another thread's training, while one is captured."""
    inside, done = threading.Event(), threading.Event()
    found: list[Any] = []

    def other() -> None:
        inside.wait()
        try:
            layer = nn.Linear(4, 1)
            layer.register_full_backward_hook(lambda *args: found.append("hook"))
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t * 1, lambda t: t):
                layer(data(0).requires_grad_()).sum().backward()
            inner = torch.utils.checkpoint.checkpoint(nn.Linear(4, 4), data(1).requires_grad_(), use_reentrant=False)
            inner.sum().backward()
            found.append(layer.weight.grad is not None)
        except Exception as error:
            found.append(error)
        finally:
            done.set()

    def body(net: Net, x: Tensor) -> Tensor:
        h = net.a(x)
        inside.set()
        done.wait(60)
        return net.b(h)

    thread = threading.Thread(target=other)
    thread.start()
    network = pcgraph.compile(Net(body))
    network(data(0)).sum().backward()
    thread.join()
    assert found == ["hook", True]
    vertices = network.graph.vertices.values()
    assert not any(vertex.checkpoint for vertex in vertices)
