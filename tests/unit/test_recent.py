"""Signatures that are told by an earlier call: always the one that would be made anew."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import pcgraph
from pcgraph.runtime import recent
from pcgraph.runtime.recent import Signatures
from pcgraph.runtime.signature import Given, signature_of

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Own(torch.Tensor):
    pass


def new(*size: int, **options: Any) -> torch.Tensor:
    return torch.zeros(size or (2, 2), **options)


def marked() -> torch.Tensor:
    tensor = new()
    tensor.note = 3  # type: ignore[attr-defined]
    return tensor


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    whole = new(2, 2, 2)
    return whole[0], whole[1]


def twice() -> tuple[torch.Tensor, torch.Tensor]:
    return (tensor := new()), tensor


ONE: dict[str, Callable[[], torch.Tensor]] = {
    "plain": new,
    "wide": lambda: new(2, 3),
    "deep": lambda: new(2, 2, 1),
    "turned": lambda: new().t(),
    "float64": lambda: new(dtype=torch.float64),
    "bool": lambda: new(dtype=torch.bool),
    "meta": lambda: new(device="meta"),
    "learns": lambda: new(requires_grad=True),
    "has a history": lambda: new(requires_grad=True) * 2,
    "parameter": lambda: torch.nn.Parameter(new()),
    "frozen parameter": lambda: torch.nn.Parameter(new(), requires_grad=False),
    "subclass": lambda: new().as_subclass(Own),
    "marked": marked,
    "complex": lambda: new(dtype=torch.complex64),
    "conjugate": lambda: new(dtype=torch.complex64).conj(),
    "negative": lambda: new(dtype=torch.complex64).conj().imag,
    "strided alike": lambda: new(dtype=torch.complex64).imag,
    "sparse": lambda: new().to_sparse(),
    "a view": lambda: new(4).view(2, 2),
}
CALLS: dict[str, Callable[[], Call]] = {
    **{name: lambda make=make: ((make(),), {}) for name, make in ONE.items()},  # type: ignore[misc]
    **{f"second {name}": lambda make=make: ((new(), make()), {}) for name, make in ONE.items()},  # type: ignore[misc]
    "none": lambda: ((), {}),
    "named": lambda: ((), {"x": new()}),
    "named otherwise": lambda: ((), {"y": new()}),
    "both": lambda: ((new(),), {"x": new()}),
    "two named": lambda: ((), {"x": new(), "y": new()}),
    "two named in another order": lambda: ((), {"y": new(), "x": new()}),
    "the same twice": lambda: (twice(), {}),
    "one memory": lambda: (halves(), {}),
    "one memory, by name": lambda: ((), dict(zip("xy", halves(), strict=True))),
    **{f"value {v!r}": lambda v=v: ((new(), v), {}) for v in (None, True, False, 1, 0, 1.0, 0.0, -0.0, "1", 5000)},  # type: ignore[misc]
    "a list": lambda: (([new()],), {}),
    "two in a list": lambda: (([new(), new()],), {}),
    "a tuple": lambda: (((new(),),), {}),
}


@pytest.mark.parametrize("before", CALLS)
def test_it_is_always_the_one_that_is_made_anew(before: str) -> None:
    for then in CALLS:
        signatures = Signatures()
        for call in (before, then, then, before):
            args, kwargs = CALLS[call]()
            told, made = signatures.of(args, kwargs), signature_of(args, kwargs)
            assert told.signature == made.signature and hash(told.signature) == hash(made.signature)
            assert [id(t) for t in told.tensors] == [id(t) for t in made.tensors]
            assert told.memories == made.memories


def test_different_calls_have_different_signatures() -> None:
    alike = {frozenset({one, "a view"}) for one in ("plain", "second plain", "strided alike")}
    alike |= {frozenset({"second plain", "second a view"}), frozenset({"plain", "a view"})}
    for one, other in itertools.combinations(CALLS, 2):
        if frozenset({one, other}) not in alike:
            assert signature_of(*CALLS[one]()).signature != signature_of(*CALLS[other]()).signature, (one, other)


@pytest.mark.parametrize("call", ["plain", "second plain", "learns", "second parameter", "two named", "value 5000"])
def test_it_is_not_made_anew_for_a_call_like_the_last(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signatures = Signatures()
    first = signatures.of(*CALLS[call]())
    monkeypatch.setattr(recent, "signature_of", _made_anew)
    assert signatures.of(*CALLS[call]()).signature is first.signature


def _made_anew(*_: Any) -> Given:
    raise AssertionError


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_gradients_off(without: Any) -> None:
    """Torch's guard then takes no tensor for one that learns."""
    signatures = Signatures()
    plain, learning = (new(),), (new(requires_grad=True),)
    signatures.of(plain, {})
    with without():
        assert signatures.of(learning, {}).signature == signature_of(learning, {}).signature
        signatures.of(learning, {})
    assert signatures.of(plain, {}).signature == signature_of(plain, {}).signature


def test_modes_around_decide_nothing() -> None:
    key = torch._C.DispatchKey.Negative
    signatures, negative = Signatures(), (ONE["negative"](),)
    for before, then in itertools.permutations([negative, (ONE["strided alike"](),)]):
        signatures.of(before, {})
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)):
            assert signatures.of(then, {}).signature == signature_of(then, {}).signature
        with torch.autocast("cpu"):
            assert signatures.of(then, {}).signature == signature_of(then, {}).signature
            told = signatures.of(then, {})
        assert told.signature == signature_of(then, {}).signature


def test_an_attribute_put_on_the_same_tensor_is_seen() -> None:
    signatures, tensor = Signatures(), new()
    first = signatures.of((tensor,), {}).signature
    assert signatures.of((tensor,), {}).signature is first
    tensor.note = 1  # type: ignore[attr-defined]
    assert signatures.of((tensor,), {}).signature != first


def test_nothing_is_kept_alive() -> None:
    signatures, tensor = Signatures(), new()
    signatures.of((tensor,), {})
    alive = weakref.ref(tensor)
    del tensor
    assert alive() is None


def test_few_are_kept() -> None:
    signatures = Signatures()
    for size in range(300):
        signatures.of((new(size),), {})
    assert len(signatures._known) <= 64


def test_a_told_call_is_still_asked_whether_its_arguments_are_the_models() -> None:
    linear = torch.nn.Linear(3, 3)
    network = pcgraph.compile(linear)
    for x, captures in (
        (torch.ones(3, 3), 1),
        (torch.ones(3, 3), 1),
        (linear.weight.detach(), 2),
        (torch.ones(3, 3), 2),
    ):
        linear.zero_grad()
        network(x).sum().backward()
        assert network.cache_info()["captures"] == captures
        assert linear.weight.grad is not None and torch.equal(linear.weight.grad, x.sum(0).expand(3, 3))
    assert network.cache_info()["programs"] == 1


def test_a_told_call_is_still_asked_by_guards() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    network = pcgraph.compile(model)
    for mode, captures in ((True, 1), (True, 1), (False, 2), (False, 2), (True, 2)):
        network.train(mode)
        network(torch.ones(2, 3)).sum().backward()
        assert network.cache_info()["captures"] == captures
