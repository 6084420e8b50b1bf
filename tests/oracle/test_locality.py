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
from pcgraph.codegen.lines import Line
from pcgraph.codegen.program import Program
from pcgraph.codegen.rematerialise import INSIDE
from pcgraph.codegen.seams import Edge
from pcgraph.codegen.sweep import VertexLines
from pcgraph.graph import Ref
from tests.zoo import ZOO


def compiled(name: str, memory: str = "default") -> Program:
    case = ZOO[name]
    model, args, kwargs = case.build()
    network = pcgraph.compile(model, memory=memory)
    network.prepare(*args, **kwargs)
    return network._last().compiled.program


def violations(program: Program) -> list[str]:
    """What breaks locality, line by line; the errors are followed from hand to hand, by value."""
    graph, names = program.graph, program.stitcher.values
    state = {graph.outputs[k]: f"arriving{k}" for segment in program.outputs_of for k in segment}
    single: dict[Edge, str] = {}
    made: set[str] = set()
    found: list[str] = []
    for part in parts(program):
        vertex = graph[part.vertex]
        if part.again:  # a checkpoint: the prediction of this vertex, or the random state around it
            predicted = repeated(program, part.vertex)
            ours = ("rng_", INSIDE)  # random state and settings around what is evaluated once more
            if not set(map(unlent, part.lines)) <= predicted and not all(
                any(word in name for word in ours for name in (*i.outs, *i.reads)) for i in part.lines
            ):
                found.append(f"{vertex.name} is evaluated once more by other lines")
            continue
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
        if not readable.issuperset((*part.handed.values(), *part.edges.values())):
            found.append(f"{vertex.name} hands on an error that it did not make")
        state.update(part.handed)
        refs, _ = program.stitcher.operands[vertex.name]
        single.update({Edge(refs[i], vertex.name, i): name for i, name in part.edges.items()})
    for lines, ends in zip(program.learn_lines, program.stitcher.ends, strict=True):
        if list(lines.results) != [single.get(end) if isinstance(end, Edge) else state.get(end) for end in ends]:
            found.append("the engine is handed something else than what a value's own uses have collected")
    return found


def repeated(program: Program, vertex: str) -> set[Line]:
    """Lines of a vertex's own prediction, also without what they write besides (running statistics)."""
    own = program.stitcher.predicted[vertex].evaluation
    again = program.stitcher.rematerialisation
    if again is None:
        return set(own)
    places = [i for i, v in enumerate(again.prediction.vertices) if v == vertex]
    return {*own, *(again.prediction.again(i) for i in places)}


def unlent(line: Line) -> Line:
    """The line without the names that are given to what is evaluated for others."""
    return line.renamed({name: re.sub(r"^lent\d+_", "", name) for name in (*line.outs, *line.reads)})


def parts(program: Program) -> list[VertexLines]:
    """Everything that learns, in order: the last segment first."""
    return [part for segment in reversed(program.learn_lines) for part in segment.parts]


@pytest.mark.parametrize("name", ["gpt_dropout", "unet_upsample", "densenet"])
def test_what_is_evaluated_once_more_is_local(name: str) -> None:
    """With low memory, learning calls lines of the prediction besides: each vertex only its own."""
    program = compiled(name, "low")
    again = [part for part in parts(program) if part.again]
    assert again
    assert violations(program) == []
    mine = {v: repeated(program, v) for v in {part.vertex for part in again}}
    first = next(
        k for k, part in enumerate(parts(program)) if part.again and set(map(unlent, part.lines)) <= mine[part.vertex]
    )
    others = parts(program)
    stolen = replace(others[first], lines=(*others[first].lines, *others[0].lines))
    segments = list(program.learn_lines)
    segments[-1] = replace(segments[-1], parts=(stolen, *segments[-1].parts))
    program.learn_lines = tuple(segments)
    assert violations(program) != []


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_line_is_local(name: str) -> None:
    program = compiled(name)
    assert parts(program) or not any(program.ends)
    assert violations(program) == []


def test_the_check_can_fail() -> None:
    """A line that reads a grandparent's value is found."""
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) if i % 2 == 0 else torch.nn.Tanh() for i in range(5)))
    network = pcgraph.compile(model, example_inputs=(torch.ones(2, 3),))
    program = network._last().compiled.program
    assert violations(program) == []
    first, *others = parts(program)
    stolen = replace(first, lines=(*first.lines, *others[-1].lines))
    program.learn_lines = (replace(program.learn_lines[0], parts=(stolen, *others)),)
    assert violations(program) != []


def test_every_vertex_is_evaluated_once() -> None:
    """Invariant 4: prediction has exactly one part per operation, learning at most one, in reverse order."""
    for name in ("resnet18", "gpt_tied", "residual_mlp_50"):
        program = compiled(name)
        predicted = [part.vertex for part in program.predict_lines.parts]
        learned = [part.vertex for part in parts(program)]
        assert len(set(predicted)) == len(predicted)
        assert len(set(learned)) == len(learned)
        place = {vertex: i for i, vertex in enumerate(predicted)}
        assert [place[v] for v in learned] == sorted((place[v] for v in learned), reverse=True)
