"""Kinds of vertices: shared, proven against autograd once, and closed where the proof fails."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import pcgraph
from pcgraph.codegen import check
from pcgraph.codegen.kinds import Kind, freeze
from pcgraph.codegen.local import LocalPrograms
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
