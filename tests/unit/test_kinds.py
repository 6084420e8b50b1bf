"""Kinds of vertices: shared, proven against autograd once, and closed where the proof fails."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import pcgraph
from pcgraph.codegen import check
from pcgraph.codegen.kinds import Kind, freeze
from pcgraph.codegen.local import LocalProgram, LocalPrograms
from pcgraph.graph import Operation, Slot, TensorSpec

SPEC = TensorSpec((3, 4), (4, 1), torch.float32, torch.device("cpu"), True)
ERROR = replace(SPEC, requires_grad=False)


def kind_of(function: object, *args: object) -> Kind:
    operation = Operation("f", function, args)  # type: ignore[arg-type]
    return Kind(operation, (SPEC,), (0,), (SPEC,), False, ((0, ERROR),))


def test_equal_vertices_share_a_program() -> None:
    programs = LocalPrograms()
    first = programs.get(kind_of(torch.tanh, Slot(0)))
    assert programs.get(kind_of(torch.tanh, Slot(0))) is first
    assert programs.get(kind_of(torch.sin, Slot(0))) is not first
    assert len(programs) == 2


def test_constants_that_torch_tells_apart_are_told_apart() -> None:
    different = [1, 1.0, True, -0.0, 0.0, "1", (1,), [1], {"a": 1}, None]
    assert len({freeze(item) for item in different}) == len(different)


def test_a_wrong_local_program_is_found() -> None:
    kind = kind_of(torch.tanh, Slot(0))
    program = LocalPrograms().get(kind)
    assert program.opaque is None
    assert check.difference(kind, program, {}) is None
    wrong = LocalPrograms().get(kind_of(torch.sin, Slot(0)))
    mixed = replace(wrong, predict=program.predict, outputs=program.outputs)
    found = check.difference(kind, replace(mixed, learn=wrong.learn, errors=wrong.errors), {})
    assert found is not None and "error of operand 0" in found


def test_a_value_used_twice_takes_the_error_collected_so_far() -> None:
    program = LocalPrograms().get(kind_of(torch.nn.functional.normalize, Slot(0)))
    assert program.repeated == {0}
    assert LocalPrograms().get(kind_of(torch.tanh, Slot(0))).repeated == frozenset()


def test_what_looks_at_data_is_opaque_and_exact() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).prod(1)

    model = Product()
    network = pcgraph.compile(model, example_inputs=(torch.ones(2, 4),))
    assert network.graph.summary()["opaque"] == 1
    assert "looks at the data" in str(network.graph)
    assert pcgraph.verify(model, (torch.randn(2, 4),), rounds=1).exact


def sized(operation: object, shape: tuple[int, ...], *args: object, error: tuple[int, ...] | None = None) -> Kind:
    """A kind as a capture makes it, with a contiguous operand and error."""
    value = torch.empty(shape, requires_grad=True)
    output = operation(value, *args)  # type: ignore[operator]
    spec = TensorSpec.of(output)
    arriving = replace(TensorSpec.of(torch.empty(output.shape)), requires_grad=False)
    named = Operation("f", operation, (Slot(0), *args))  # type: ignore[arg-type]
    return Kind(named, (TensorSpec.of(value),), (0,), (spec,), False, ((0, arriving),))


SIZED = {
    "softmax": (lambda n: sized(torch.softmax, (n, 9), -1)),
    "sum": (lambda n: sized(torch.sum, (n, 9))),
    "mean": (lambda n: sized(torch.mean, (n, 3 * n))),
    "view": (lambda n: sized(torch.reshape, (n, 4, 6), (n, 24))),
    "expand": (lambda n: sized(torch.Tensor.expand, (1, 5), (n, 5))),
    "pool": (lambda n: sized(torch.nn.functional.max_pool2d, (2, 3, n, n), 2)),
    "half": (lambda n: sized(torch.narrow, (n, 5), 0, 0, n // 2)),
    "fft": (lambda n: sized(torch.fft.hfft, (n,))),
    "norm": (lambda n: sized(torch.linalg.vector_norm, (n, n))),
    "roll": (lambda n: sized(torch.roll, (n, 5), n // 3)),
    "unfold": (lambda n: sized(torch.Tensor.unfold, (n, 5), 0, n // 2, 1)),
    "tril": (lambda n: sized(torch.tril, (n, n), n // 5)),
}
EXPECTED_TRACES = {"softmax": 2, "sum": 2, "view": 2, "pool": 2}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """The kinds that are traced from now on."""
    kinds: list[Kind] = []
    trace = LocalPrograms._trace

    def counted(self: LocalPrograms, kind: Kind, wanted: list[int]) -> LocalProgram:
        kinds.append(kind)
        return trace(self, kind, wanted)

    monkeypatch.setattr(LocalPrograms, "_trace", counted)
    return kinds


@pytest.mark.parametrize("name", list(SIZED))
def test_a_third_size_follows_from_two_and_is_proven(name: str, traced: list[Kind]) -> None:
    """Derived or traced, what comes out is what tracing alone gives, line by line."""
    programs = LocalPrograms()
    sizes = (6, 8, 11, 17, 30)
    expected = [LocalPrograms().get(SIZED[name](n)) for n in sizes]
    traced.clear()
    for n, plain in zip(sizes, expected, strict=True):
        program = programs.get(SIZED[name](n))
        assert program.opaque == plain.opaque
        if plain.opaque is None:
            assert program.layouts == plain.layouts
            for a, b in zip((*program.predict, *program.learn), (*plain.predict, *plain.learn), strict=True):
                assert re.sub(r"k[0-9]+", "k", a.render()) == re.sub(r"k[0-9]+", "k", b.render())
    assert len(traced) == EXPECTED_TRACES.get(name, len(traced))


def test_a_size_that_was_taken_for_another_is_learned(traced: list[Kind], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first batch size, 4 * 8 is a size of two weights as well."""
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 5), nn.Tanh(), nn.Linear(5, 32))
    network = pcgraph.compile(model)
    monkeypatch.setattr(pcgraph.codegen.program, "PROGRAMS", LocalPrograms())
    counts = []
    for batch in (4, 3, 7, 5, 2):
        x = torch.randn(batch, 8, 16)
        gradients = []
        for f in (model, network):
            model.zero_grad()
            f(x).square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        assert all(map(torch.equal, *gradients))
        counts.append(len(traced))
    assert counts[2] == counts[1]
    assert counts[4] == counts[1] > counts[0]


class Bounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Embedding(10, 8, padding_idx=1), nn.Embedding(10, 8, padding_idx=2)
        self.bound = 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x) + self.b(x)
        clamped = torch.clamp(3 * y, max=self.bound)
        return torch.nan_to_num(clamped.masked_fill((x == 3)[..., None], torch.inf), posinf=self.bound)


def test_a_number_that_is_no_size_is_not_taken_for_one() -> None:
    """At some batch sizes the padding index or the bound equals a size; random data would not show the difference."""
    model = Bounded()
    network = pcgraph.compile(model)
    for batch, bound in ((16, 4), (5, 4), (2, 4), (2, 2), (4, 2), (7, 5), (3, 7), (1, 1), (8, 8)):
        model.bound = bound
        x, seen = torch.arange(batch * 6).view(batch, 6) % 10, []
        for f in (model, network):
            model.zero_grad()
            y = f(x)
            (y * torch.arange(8.0)).sum().backward()
            seen.append([y.detach(), *(p.grad for p in model.parameters())])
        assert all(map(torch.equal, *seen)), (batch, bound)


def test_relays_of_an_output_and_of_a_vertex_of_its_name() -> None:
    class Splits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.fc(x)
            a, b = h.split(2, -1)
            c, _ = h.sin().split(2, -1)
            return a.tanh().tanh().tanh() + b + c.tanh().tanh().tanh() + c

    network = pcgraph.compile(Splits(), example_inputs=(torch.randn(3, 4, requires_grad=True),))
    assert {"split", "split_1"} <= network.graph.vertices.keys()
    network.graph.levelled().verify()


@pytest.mark.parametrize("expanded", [False, True])
def test_a_prediction_that_follows_from_others_is_proven_without_an_error(expanded: bool) -> None:
    """At a batch of two, the dimension of an index is a size as well; where no error comes, nothing else shows it."""

    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.picked(self.one(x)) + self.picked(self.two(x[:, :, :4, :4]))

        def picked(self, h: torch.Tensor) -> torch.Tensor:
            side = h.shape[-1]
            rows = h[:, :, :1].expand(-1, -1, side, -1) if expanded else h  # the same row again and again
            return h.mean((1, 2, 3)) + (rows[:, :, 0].detach() * torch.arange(side)).sum((1, 2))

    torch.manual_seed(0)
    model = Picks()
    network = pcgraph.compile(model)
    for size in (2, 3, 3, 4, 2):
        x = torch.randn(size, 1, 5, 5)
        assert torch.equal(network(x), model(x)), f"a batch of {size}"
