"""Metadata of tensors: every change is seen, by words of memory and without them, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pcgraph.capture import tensor_guards
from pcgraph.capture.tensor_guards import TensorMetadata
from pcgraph.capture.tensor_words import LAYOUT, TensorWords, readable

Change = Callable[[torch.Tensor], Any]


def data(*size: int, **options: Any) -> Change:
    return lambda t: setattr(t, "data", torch.empty(*size, **options))


def becomes(t: torch.Tensor) -> None:
    t.__class__ = nn.Parameter


CHANGES: dict[str, Change] = {
    "requires_grad": lambda t: t.requires_grad_(not t.requires_grad),
    "history": lambda t: t.detach_().mul_(torch.ones(1, requires_grad=True)),
    "larger": data(4, 3),
    "longer": data(2, 5),
    "flat": data(6),
    "scalar": data(()),
    "six dimensions": data(2, 3, 1, 1, 1, 1),
    "resized": lambda t: t.detach().resize_(3, 4) if t.requires_grad else t.resize_(3, 4),
    "transposed": lambda t: setattr(t, "data", torch.empty(3, 2).t()),
    "turned in place": lambda t: t.detach_().t_(),
    "dtype": data(2, 3, dtype=torch.float64),
    "device": lambda t: torch.utils.swap_tensors(t, torch.empty(2, 3, device="meta")),
    "swapped": lambda t: torch.utils.swap_tensors(t, torch.empty(2, 4)),
    "class": becomes,
}
UNSEEN: dict[str, Change] = {
    "written": lambda t: t.detach().zero_(),
    "other memory": data(2, 3),
    "there and back": lambda t: t.requires_grad_(not t.requires_grad).requires_grad_(not t.requires_grad),
    "gradient": lambda t: setattr(t, "grad", torch.ones(2, 3)),
    "attribute": lambda t: setattr(t, "note", 3),
    "swapped for an equal one": lambda t: torch.utils.swap_tensors(t, torch.empty(2, 3, requires_grad=t.requires_grad)),
}


def tensors() -> list[torch.Tensor]:
    """The last one is changed."""
    several = [
        torch.empty(2),
        torch.empty(2, 3, 4, 5, 6),
        nn.Parameter(torch.empty(3)),
        torch.zeros((), dtype=torch.int64),
    ]
    return [*several, torch.empty(2, 3), torch.empty(2, 3)]


@pytest.fixture(params=["words", "guard", "lists"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How metadata are compared: each way has to stand alone, for a torch in which the faster ones do not work."""
    if request.param != "words":
        monkeypatch.setattr(tensor_guards, "LAYOUT", None)
    if request.param == "lists":
        monkeypatch.setattr(tensor_guards, "_guard", lambda tensors: None)
    return str(request.param)


def test_words_are_found_here() -> None:
    assert LAYOUT is not None


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(way: str, change: str) -> None:
    metadata = TensorMetadata(own := tensors())
    assert metadata.same() and metadata.same()
    CHANGES[change](own[-1])
    assert not metadata.same()
    assert not metadata.same()  # no accident is taken for the new state


@pytest.mark.parametrize("change", CHANGES)
def test_words_tell_of_every_change(change: str) -> None:
    assert LAYOUT is not None
    words = TensorWords(own := tensors(), LAYOUT)
    assert words.unchanged()
    CHANGES[change](own[-1])
    assert not words.unchanged()


@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("change", ["requires_grad", "history"])
def test_words_tell_of_a_change_to_a_tensor_that_has_learnt_before(change: str, learns: bool) -> None:
    """Autograd's notes on it are there already and stay where they are."""
    assert LAYOUT is not None
    own = tensors()
    own[-1].requires_grad_().requires_grad_(learns)
    if change == "history" and learns:
        own[-1].detach_().requires_grad_(False)
    words, metadata = TensorWords(own, LAYOUT), TensorMetadata(own)
    assert words.unchanged() and metadata.same()
    CHANGES[change](own[-1])
    assert not words.unchanged() and not metadata.same()


@pytest.mark.parametrize("change", UNSEEN)
@pytest.mark.parametrize("trained", [False, True])
def test_what_is_no_change(way: str, change: str, trained: bool) -> None:
    own = tensors()
    own[-1].requires_grad_(trained)
    metadata = TensorMetadata(own)
    UNSEEN[change](own[-1])
    assert metadata.same()


def test_a_harmless_change_is_looked_into_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = TensorMetadata(own := tensors())
    own[-1].requires_grad_().requires_grad_(False)  # leaves an AutogradMeta behind
    assert metadata.same()
    monkeypatch.setattr(metadata, "_guard", None)
    monkeypatch.setattr(metadata, "_properties", "nothing equals this")
    assert metadata.same()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(1, 2, 1, 1, 1, 1),
        torch.eye(2).to_sparse(),
        torch.Tensor._make_subclass(type("Own", (torch.Tensor,), {}), torch.empty(2)),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    ],
)
def test_what_is_not_read_by_words(tensor: torch.Tensor) -> None:
    assert not readable(tensor)
    assert TensorMetadata([tensor, torch.empty(2)]).same()


def test_none_at_all() -> None:
    assert TensorMetadata([]).same()


def test_modes_around_are_seen() -> None:
    metadata = TensorMetadata([torch.empty(2), torch.empty(2)])
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutogradCPU)):
        assert not metadata.same()
    assert metadata.same()
