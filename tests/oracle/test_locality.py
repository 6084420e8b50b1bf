"""Invariant 2, static: an error is made of the errors of its uses, the values of its parents and its own saved values.

Every line of the compiled learning program belongs to one vertex. It may read only: errors that arrived at that
vertex's own outputs; values of that vertex and of its operands; its own temporaries; and the error collected so far
at its operands, which it adds to. Nothing else; and it may write only temporaries of its own and errors of its
operands.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

import pcgraph
from pcgraph.codegen.program import Program
from pcgraph.graph import Ref
from tests.zoo import ZOO


def compiled(name: str) -> Program:
    case = ZOO[name]
    model, args, kwargs = case.build()
    network = pcgraph.compile(model)
    network.prepare(*args, **kwargs)
    return network._last().compiled.program


def violations(program: Program) -> list[str]:
    """What breaks locality, line by line; the errors are followed from hand to hand, by value."""
    graph, names = program.graph, program._stitcher._values
    state = {ref: f"arriving{k}" for k, ref in enumerate(graph.outputs) if graph.carries_error(ref)}
    made: set[str] = set()
    found: list[str] = []
    for part in program.learn_lines.parts:
        vertex = graph[part.vertex]
        own = {Ref(vertex.name, k) for k in range(len(vertex.outputs))}
        operands = set(vertex.operands)
        if not own.issuperset(part.errors) or any(state.get(ref) != name for ref, name in part.errors.items()):
            found.append(f"{vertex.name} starts from errors that are not its own")
        if not operands.issuperset(part.collected) or not operands.issuperset(part.handed):
            found.append(f"{vertex.name} hands errors to a vertex that it does not read")
        if any(state.get(ref) != name for ref, name in part.collected.items()):
            found.append(f"{vertex.name} adds to something that its operands have not collected")
        readable = set(part.errors.values()) | set(part.collected.values())
        readable |= {names[ref] for ref in own | operands}
        for line in part.lines:
            for read in line.reads:
                saved = re.fullmatch(rf"t\d+_{re.escape(vertex.name)}", read)  # kept by its own prediction
                if read not in readable and not saved:
                    found.append(f"{vertex.name}: {line.render()} reads {read}")
            if not line.outs:  # adds in place: to a sum of its operand's that nobody else holds
                target = line.reads[0]
                holders = [ref for ref, name in state.items() if name == target]
                temporary = target in made and target.endswith(f"_{vertex.name}") and not holders
                if not temporary and (len(holders) != 1 or holders[0] not in operands):
                    found.append(f"{vertex.name}: {line.render()} changes {target}, held by {holders}")
            if made & set(line.outs):
                found.append(f"{vertex.name}: {line.render()} overwrites {made & set(line.outs)}")
            made |= set(line.outs)
            readable |= set(line.outs)
        if not readable.issuperset(part.handed.values()):
            found.append(f"{vertex.name} hands on an error that it did not make")
        state.update(part.handed)
    leaves = [Ref(name) for name in program.leaves]
    if list(program.learn_lines.results) != [state.get(ref) for ref in leaves]:
        found.append("a parameter's update is not what its own uses have collected")
    return found


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_line_is_local(name: str) -> None:
    program = compiled(name)
    assert program.learn_lines.parts or not program.leaves
    assert violations(program) == []


def test_the_check_can_fail() -> None:
    """A line that reads a grandparent's value is found."""
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) if i % 2 == 0 else torch.nn.Tanh() for i in range(5)))
    network = pcgraph.compile(model, example_inputs=(torch.ones(2, 3),))
    program = network._last().compiled.program
    assert violations(program) == []
    parts = list(program.learn_lines.parts)
    first, last = parts[0], parts[-1]
    stolen = replace(first, lines=(*first.lines, *last.lines))
    program.learn_lines = replace(program.learn_lines, parts=(stolen, *parts[1:]))
    assert violations(program) != []


def test_every_vertex_is_evaluated_once() -> None:
    """Invariant 4: prediction has exactly one part per operation, learning at most one, in reverse order."""
    for name in ("resnet18", "gpt_tied", "residual_mlp_50"):
        program = compiled(name)
        predicted = [part.vertex for part in program.predict_lines.parts]
        learned = [part.vertex for part in program.learn_lines.parts]
        assert len(set(predicted)) == len(predicted)
        assert len(set(learned)) == len(learned)
        place = {vertex: i for i, vertex in enumerate(predicted)}
        assert [place[v] for v in learned] == sorted((place[v] for v in learned), reverse=True)
