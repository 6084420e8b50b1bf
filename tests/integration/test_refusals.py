"""What could be silently wrong is refused, with the line and the way out; found by trying to break pcgraph."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pcgraph
from pcgraph.errors import CaptureError
from tests.integration.test_misuse import assert_same_step

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)


class WritesUnseen(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        with torch.no_grad():
            y.mul_(2)
        return y


class Reseeds(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return F.dropout(self.fc(x))


class ChangesItsArgument(Base):
    def forward(self, x: list[torch.Tensor]) -> torch.Tensor:
        x.append(x[0])
        return self.fc(x[0])


class KeepsItsInput(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return self.fc(x)


class KeepsALeaf(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.detach().requires_grad_()
        return self.fc(self.seen)


class DrawsBeforeALazyLayer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.dropout(self.fc(x), 0.5, True))


@pytest.mark.parametrize(
    ("make", "argument", "message"),
    [
        (WritesUnseen, X, "behind autograd's back"),
        (Reseeds, X, "random numbers"),
        (ChangesItsArgument, [X], "container among its arguments"),
        (KeepsItsInput, X.clone().requires_grad_() * 1, "keeps or returns"),
        (KeepsALeaf, X, "keeps or returns"),
        (DrawsBeforeALazyLayer, X, "random numbers are drawn before the lazy module 'last'"),
    ],
    ids=lambda v: v.__name__ if isinstance(v, type) else "",
)
def test_refused(make: Callable[[], nn.Module], argument: object, message: str) -> None:
    rng = torch.get_rng_state()
    network = pcgraph.compile(make())
    rng = torch.get_rng_state()
    with pytest.raises(CaptureError, match=message) as error:
        network(argument)
    assert error.value.hint
    assert torch.equal(torch.get_rng_state(), rng)


# -- Python state that a run reads: the next call sees the change -------------------------------------------
FLAG = {"scale": 1.0}


@dataclass
class Config:
    scale: float = 1.0


class Reads(Base):
    kind = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.items, self.config = 1.0, [1.0], Config()
        self.options = {"scale": 1.0}
        self.array = np.array([1.0])
        self.function = lambda x: x * 1.0

    def forward(self, x: torch.Tensor, extra: list[float] = [1.0]) -> torch.Tensor:  # noqa: B006
        s = self.scale * self.items[-1] * self.config.scale * self.options["scale"] * float(self.array[0]) * self.kind
        s *= FLAG["scale"] * extra[0] * float(os.environ.get("PCGRAPH_TEST_SCALE", "1"))
        return self.function(self.fc(x)) * s


def _environ() -> None:
    os.environ["PCGRAPH_TEST_SCALE"] = "3"


CHANGES: dict[str, Callable[[Reads], object]] = {
    "attribute": lambda m: setattr(m, "scale", 2.0),
    "list element": lambda m: m.items.append(2.0),
    "dict value": lambda m: m.options.update(scale=2.0),
    "nested object": lambda m: setattr(m.config, "scale", 2.0),
    "array": lambda m: m.array.fill(2.0),
    "function": lambda m: setattr(m, "function", lambda x: x * 2.0),
    "class attribute": lambda m: setattr(Reads, "kind", 2.0),
    "global": lambda m: FLAG.update(scale=2.0),
    "default": lambda m: Reads.forward.__defaults__[0].__setitem__(0, 2.0),  # type: ignore[index]
    "environment": lambda m: _environ(),
    "method": lambda m: setattr(m, "forward", lambda x: m.fc(x) * 5),
}


@pytest.mark.parametrize("change", CHANGES)
def test_state_is_guarded(change: str) -> None:
    model = Reads()
    network = pcgraph.compile(model)
    try:
        for _ in range(2):
            assert_same_step(model, network, X)
            CHANGES[change](model)
            assert_same_step(model, network, X)
    finally:
        FLAG["scale"], Reads.kind = 1.0, 1.0
        Reads.forward.__defaults__[0][0] = 1.0  # type: ignore[index]
        os.environ.pop("PCGRAPH_TEST_SCALE", None)


class Draws(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * (1 + random.random()) if random.random() < 2 else x


class Counts(Base):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.fc(x) * self.calls


class Converts(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x) * x.mean().item()


@pytest.mark.parametrize("make", [Draws, Counts, Converts])
def test_what_cannot_be_guarded_is_captured_at_every_call(make: type[Base]) -> None:
    import copy

    plain = make()
    network = pcgraph.compile(copy.deepcopy(plain))
    for step in range(3):
        for call in (plain, network):
            random.seed(step)
            call.zero_grad()
            call(X).square().sum().backward()
        assert torch.equal(plain.fc.weight.grad, network.fc.weight.grad)
    info = network.cache_info()
    assert info["captures"] == 3 and info["programs"] == 0 and info["once"]


def test_errors_reach_every_layer_around() -> None:
    """A network inside of a larger model hands the right error to what comes before, in every layout."""
    torch.manual_seed(0)
    before, inner, after = nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 2)
    network = pcgraph.compile(inner)
    for arrange in (lambda t: t, lambda t: t.t().contiguous().t(), lambda t: t.sum().expand(3, 4)):
        grads = []
        for call in (inner, network):
            before.zero_grad()
            after.zero_grad()
            inner.zero_grad()
            after(call(arrange(before(X)))).sum().backward()
            grads.append([p.grad.clone() for m in (before, inner, after) for p in m.parameters()])
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, error: torch.Tensor) -> torch.Tensor:
        return error * 3


stored_apply = Double.apply


def test_stored_apply_of_a_custom_function_is_exact_or_refused() -> None:
    """From torch 2.14 on a stored `apply` cannot be seen; then it must not pass for the identity."""

    class Uses(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(stored_apply(self.fc(x)))

    model = Uses()
    try:
        assert_same_step(model, pcgraph.compile(model), X)
    except CaptureError as error:
        assert "MyFunction.apply" in str(error)


scale = 1.0  # a global that happens to be called like an attribute that a forward reads


def test_a_global_with_the_name_of_an_attribute_is_not_read() -> None:
    global scale

    class Scaled(Base):
        scale = 2.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) * self.scale

    network = pcgraph.compile(Scaled())
    for _ in range(3):
        network(X).sum().backward()
        scale += 1
    assert network.cache_info()["captures"] == 1


def test_autocast_around_the_call() -> None:
    """A mixed-precision step: captured once, equal to the bit, weights with two uses included."""
    import copy

    class Mixed(Base):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = F.layer_norm(torch.relu(self.fc(x)), (4,))
            h = torch.softmax(self.fc(h), -1) * F.normalize(h)
            with torch.autocast("cpu", enabled=False):  # full precision, whatever is around
                return h.float() @ self.fc.weight

    plain = Mixed()
    network = pcgraph.compile(copy.deepcopy(plain))
    for _ in range(2):
        results = []
        for call in (plain, network):
            call.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                out = call(X)
                loss = out.square().mean()
            loss.backward()
            results.append([out.detach(), call.fc.weight.grad, call.fc.bias.grad])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert network.cache_info()["captures"] == 1
