"""Inputs that go wrong: each behaves as the plain model does, captures again, or raises an error with the way out."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph
from pcgraph.errors import CaptureError, LearnError, PCGraphError
from pcgraph.measure import same_bits


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3))


def grads(model: nn.Module) -> list[torch.Tensor | None]:
    return [p.grad for p in model.parameters()]


def assert_same_step(plain: nn.Module, network: nn.Module, x: torch.Tensor) -> None:
    """One step each from one random state; outputs and gradients are equal to the bit, None for None."""
    results = []
    for call in (plain, network):
        call.zero_grad()
        torch.manual_seed(7)
        out = call(x)
        out.square().mean().backward()
        results.append((out, [None if p.grad is None else p.grad.clone() for p in call.parameters()]))
    (a, ga), (b, gb) = results
    assert same_bits(a, b)
    for p, q in zip(ga, gb, strict=True):
        assert (p is None) == (q is None)
        assert p is None or same_bits(p, q)


X = torch.linspace(-1, 1, 20).reshape(5, 4)


def both() -> tuple[nn.Module, pcgraph.PCNetwork]:
    model = net()
    return copy.deepcopy(model), pcgraph.compile(model)


# -- the call ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "call",
    [
        lambda m: m(torch.ones(5, 3)),
        lambda m: m(torch.ones(5, 4, dtype=torch.float64)),
        lambda m: m(torch.ones(5, 4, device="meta")),
        lambda m: m(),
        lambda m: m(X, X),
        lambda m: m(X, nonsense=1),
        lambda m: m("text"),
    ],
    ids=["shape", "dtype", "device", "missing", "extra", "unknown keyword", "not a tensor"],
)
def test_wrong_arguments_raise_what_the_model_raises(call: Callable[[nn.Module], object]) -> None:
    plain, network = both()
    with pytest.raises(Exception) as theirs:
        call(plain)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(type(theirs.value)) as ours:
        call(network)
    assert str(ours.value) == str(theirs.value)
    assert all(same_bits(v, before[k]) for k, v in network.state_dict().items())
    assert_same_step(plain, network, X)  # nothing was lost


def test_only_modules_are_compiled() -> None:
    with pytest.raises(PCGraphError, match=r"takes a torch\.nn\.Module, not a function"):
        pcgraph.compile(lambda x: x)  # type: ignore[arg-type]


def test_model_without_parameters_predicts_and_has_nothing_to_learn() -> None:
    network = pcgraph.compile(nn.Tanh())
    out = network(X)
    assert torch.equal(out, torch.tanh(X))
    with pytest.raises(RuntimeError, match="does not require grad"):
        out.sum().backward()


def test_output_that_is_not_differentiable() -> None:
    class Arg(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).argmax(1)

    model = Arg()
    network = pcgraph.compile(model)
    assert torch.equal(network(X), model(X))
    assert not network(X).requires_grad
    with pytest.raises(PCGraphError, match="no floating point tensor"):
        pcgraph.verify(model, (X,))


def test_nan_in_the_data_goes_through_as_in_the_model() -> None:
    x = X.clone()
    x[2, 1] = float("nan")
    assert_same_step(*both(), x)


def test_other_batch_size_and_layout() -> None:
    plain, network = both()
    for x in (X, X[:3], torch.randn(4, 7).t(), X.expand(5, 4), torch.randn(5, 8)[:, ::2]):
        assert_same_step(plain, network, x)


# -- learning ------------------------------------------------------------------------------------------
def test_second_backward_needs_retain_graph() -> None:
    _, network = both()
    loss = network(X).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_retain_graph_learns_again() -> None:
    plain, network = both()
    for model in (plain, network):
        torch.manual_seed(1)
        loss = model(X).square().sum()
        loss.backward(retain_graph=True)
        loss.backward(retain_graph=True)
        loss.backward()
    assert all(same_bits(a, b) for a, b in zip(grads(plain), grads(network), strict=True))


def test_double_backward_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    network = pcgraph.compile(model)
    (gradient,) = torch.autograd.grad(network(X).sum(), [model[0].weight], create_graph=True)
    with pytest.raises(LearnError, match="cannot be differentiated again"):
        gradient.square().sum().backward()


def test_values_changed_between_prediction_and_learning() -> None:
    plain, network = both()
    for model in (plain, network):
        loss = model(X).square().sum()
        with torch.no_grad():
            next(iter(list(model.parameters())[-2:])).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_output_changed_in_place_that_learning_needs() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    for call in (model, pcgraph.compile(model)):
        out = call(X)
        out.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_no_grad_is_plain_prediction() -> None:
    plain, network = both()
    for context in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(2)
        with context():
            a = plain(X)
        torch.manual_seed(2)
        with context():
            b = network(X)
        assert same_bits(a, b)
        assert not b.requires_grad


# -- the model changes after compile ---------------------------------------------------------------------
def change_module(m: nn.Module) -> None:
    torch.manual_seed(5)
    m[0] = nn.Linear(4, 6)  # type: ignore[index, operator]


def change_parameter(m: nn.Module) -> None:
    torch.manual_seed(5)
    m[0].weight = nn.Parameter(torch.randn(6, 4))  # type: ignore[index, union-attr, operator]


def change_data(m: nn.Module) -> None:
    m[0].weight.data = torch.ones(6, 4)  # type: ignore[index, union-attr, operator]


def freeze(m: nn.Module) -> None:
    m[0].weight.requires_grad_(False)  # type: ignore[index, union-attr, operator]


def to_eval(m: nn.Module) -> None:
    m.eval()


def eval_one(m: nn.Module) -> None:
    m[1].eval()  # type: ignore[index, union-attr, operator]


def set_attribute(m: nn.Module) -> None:
    m[3].p = 0.8  # type: ignore[index, union-attr, operator]


def replace_forward(m: nn.Module) -> None:
    m[2].forward = torch.tanh  # type: ignore[index, union-attr, operator]


def add_hook(m: nn.Module) -> None:
    m[2].register_forward_hook(lambda module, args, out: out * 2)  # type: ignore[index, union-attr, operator]


def set_buffer(m: nn.Module) -> None:
    m[1].running_mean = torch.ones(6)  # type: ignore[index, union-attr, operator]


def append(m: nn.Module) -> None:
    m.append(nn.Tanh())  # type: ignore[operator]


CHANGES = [
    change_module, change_parameter, change_data, freeze, to_eval, eval_one, set_attribute, replace_forward, add_hook,
    set_buffer, append,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_changed_model_is_captured_again(change: Callable[[nn.Module], None]) -> None:
    plain, network = both()
    assert_same_step(plain, network, X)
    change(plain)
    change(network.module)
    assert_same_step(plain, network, X)
    # New data in the same parameter is read live; everything else makes another program.
    assert network.cache_info()["captures"] == (1 if change is change_data else 2)
    assert_same_step(plain, network, X)


def test_unchanged_model_is_not_captured_again() -> None:
    plain, network = both()
    for _ in range(3):
        assert_same_step(plain, network, X)
    assert network.cache_info() == {"hits": 2, "captures": 1, "programs": 1, "once": (), "uncompiled": {}}


def test_double_after_compile() -> None:
    plain, network = both()
    assert_same_step(plain, network, X)
    plain.double(), network.double()
    assert_same_step(plain, network, X.double())


# -- being a module ----------------------------------------------------------------------------------------
def test_drop_in() -> None:
    model = net()
    network = pcgraph.compile(model)
    assert list(network.state_dict()) == list(model.state_dict())
    assert [n for n, _ in network.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert all(p is q for p, q in zip(network.parameters(), model.parameters(), strict=True))
    assert network[0] is model[0] if hasattr(network, "__getitem__") else True
    network.eval()
    assert not model.training and not network.training
    network.train()
    assert model.training
    outer = nn.Sequential(nn.Linear(4, 4), network)
    assert set(outer.state_dict()) == {"0.weight", "0.bias"} | {f"1.{k}" for k in model.state_dict()}
    outer.load_state_dict({k: torch.zeros_like(v) for k, v in outer.state_dict().items()})
    assert all(not p.any() for p in model.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_learn_on_their_own(copied: Callable[[nn.Module], nn.Module]) -> None:
    plain, network = both()
    assert_same_step(plain, network, X)
    twin = copied(network)
    assert isinstance(twin, pcgraph.PCNetwork)
    assert all(p is not q for p, q in zip(twin.parameters(), network.parameters(), strict=True))
    assert_same_step(copied(plain), twin, X)


def test_error_names_the_line_and_the_way_out() -> None:
    class Bad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            h.data = h.data * 2
            return h

    with pytest.raises(CaptureError) as error:
        pcgraph.compile(Bad())(X)
    text = str(error.value)
    assert "test_misuse.py" in text and "do:" in text and "in forward" in text


def test_backward_hooks_of_the_old_kind_are_refused() -> None:
    model = net()
    model[0].register_backward_hook(lambda *_: None)
    with pytest.raises(CaptureError, match="backward hook of the old kind"):
        pcgraph.compile(model)(X)


def test_strict_refuses_opaque_vertices() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            return torch.masked_select(h, h > 0)

    model = Masked()
    assert pcgraph.verify(model, (X,), rounds=1).exact
    with pytest.raises(CaptureError, match="opaque"):
        pcgraph.compile(model, strict=True)(X)


def test_output_returned_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.fc(x)
            return y, torch.tanh(y), y

    torch.manual_seed(0)
    plain = Twice()
    network = pcgraph.compile(copy.deepcopy(plain))
    for call in (plain, network):
        a, b, c = call(X)
        assert a is c
        (a.square().sum() + 3 * b.sum() + c.sin().sum()).backward()
    assert all(same_bits(a, b) for a, b in zip(grads(plain), grads(network), strict=True))


def test_input_returned_beside_its_uses() -> None:
    """The error that reaches a returned input from outside enters its sum first, as in autograd."""

    class Beside(nn.Module):
        def __init__(self, body: Callable[[torch.Tensor], torch.Tensor]) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return x, self.body(x)

    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * 0.3) + torch.sin(x)

    for body in (twice, nn.functional.normalize, torch.tanh):  # two uses; one use that reads twice; one use
        results = []
        for call in (Beside(body), pcgraph.compile(Beside(body))):
            x = X.clone().requires_grad_()
            a, b = call(x)
            (a.exp().sum() + b.square().sum() * 0.7).backward()
            results.append(x.grad)
        assert same_bits(results[0], results[1])


def test_detached_alias_of_an_output_stays_detached() -> None:
    """Found by the random DAGs: the alias shares memory with an output that learns."""

    class Alias(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = self.fc(x)
            alias = y.detach()
            y.add_(x)
            return y, alias

    torch.manual_seed(0)
    plain = Alias()
    for call in (plain, pcgraph.compile(plain)):
        y, alias = call(X)
        assert y.requires_grad and not alias.requires_grad
        assert torch.equal(y, alias)


def test_unused_piece_of_a_base_that_is_written() -> None:
    """Found by the random DAGs: autograd refuses any use of such a piece, so it must not even be asked."""

    class Pieces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            first, *_ = y.unbind(1)
            total = first * 2
            y.add_(1)
            return y * total.unsqueeze(1)

    torch.manual_seed(0)
    plain = Pieces()
    assert_same_step(plain, pcgraph.compile(copy.deepcopy(plain)), X)


def test_a_network_inside_of_a_network_is_part_of_it() -> None:
    plain = net()
    inner = copy.deepcopy(plain)
    outer = pcgraph.compile(nn.Sequential(pcgraph.compile(inner)))
    assert_same_step(nn.Sequential(plain), outer, X)
    assert outer.graph.summary()["opaque"] == 0


def test_a_prediction_that_is_dropped_is_freed_at_once() -> None:
    """No cycle through autograd's node: the garbage collector is not needed."""
    network = pcgraph.compile(net(), example_inputs=(X,))
    gc.disable()
    try:
        out = network(X)
        alive = weakref.ref(out)
        del out
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("where", [F, torch, torch.Tensor], ids=["F", "torch", "Tensor"])
def test_a_patched_function_of_torch_is_noticed(where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Patched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.act = nn.Linear(4, 4), nn.Softplus()

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(self.act(self.fc(x))).cosh()

    model = Patched()
    network = pcgraph.compile(model)
    before = network(X)
    name = {F: "softplus", torch: "sin", torch.Tensor: "cosh"}[where]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, lambda x, *_: x * 3)
        assert torch.equal(network(X), model(X))
        assert not torch.equal(network(X), before)
    assert torch.equal(network(X), before)


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.a(x) * 1
        return h, h[0]


def test_an_output_with_a_returned_view_is_not_written_to() -> None:
    """Autograd would make the view learn of it; here it must not go wrong silently."""
    network = pcgraph.compile(Views())
    for _ in range(2):
        whole, _ = network(X)
        with pytest.raises(RuntimeError, match="is a view and is being modified inplace"):
            whole.mul_(2)
        whole, row = network(X)
        (whole.sum() + row.square().sum()).backward()


def test_data_exchanged_before_learning() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    network = pcgraph.compile(model)
    for _ in range(2):
        loss = network(X).sum()
        model[2].weight.data = model[2].weight.data * 2
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_the_models_own_buffer_as_an_argument() -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.register_buffer("own", torch.ones(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * self.own

    model = Adds()
    network = pcgraph.compile(model)
    other = torch.randn(3, 4)
    for x in (model.own, other, model.own, other):
        assert torch.equal(network(x), model(x))


def test_the_number_of_programs_is_bounded() -> None:
    model = nn.Linear(3, 2)
    network = pcgraph.compile(model, max_programs=2)
    for batch in (1, 2, 1, 3, 1):
        network(torch.ones(batch, 3)).sum().backward()
    assert network.cache_info()["captures"] == 3
    assert network.cache_info()["programs"] == 2
    network(torch.ones(2, 3))  # the one that was not used for longest
    assert network.cache_info()["captures"] == 4
    assert copy.deepcopy(network)._options["max_programs"] == 2
    with pytest.raises(pcgraph.PCGraphError, match="max_programs must be at least 1"):
        pcgraph.compile(model, max_programs=0)
