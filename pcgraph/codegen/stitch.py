"""Stitching: local programs, one per vertex, become one prediction and one learning program.

Names tell what is what: ``x_<vertex>`` is a value, ``e_<vertex>`` the first error that arrives at it (in PyTorch's
sign, the negative of the paper's error node), ``s_<vertex>`` a sum of errors, ``t<n>_<vertex>`` a temporary of one
vertex; further outputs of a vertex are numbered, ``x1_<vertex>``. ``arriving<k>`` is the error of output k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..graph import PCGraph, Ref, Role, TensorSpec, Vertex
from ..schedule import Schedule
from .kinds import Error, Kind, distinct
from .lines import Line, native_line
from .local import LocalProgram, LocalPrograms
from .precision import settings
from .recompute import Recomputation
from .rematerialise import Rematerialisation
from .seams import Edge, Seams, candidates
from .sweep import Sweep, VertexLines


@dataclass(frozen=True)
class Stitched:
    """A whole program as vertex lines, in order."""

    parts: tuple[VertexLines, ...]
    results: tuple[str | None, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, in order."""
        return tuple(line for part in self.parts for line in part.lines)


def value_name(ref: Ref) -> str:
    """Name of a value in generated code."""
    return f"x{ref.output or ''}_{ref.vertex}"


class Stitcher:
    """Builds both programs of one schedule.

    Args:
        schedule: which vertices learn, and in which order.
        programs: cache of local programs.

    Attributes:
        segments: vertices that learn, in the order of learning, per segment; the last one learns first.
        outputs_of: per segment, the outputs (by index) whose errors arrive at it.
        ends: per segment, what it hands to the engine: gradients of leaves, and errors of single uses.
        predicted: lines of the prediction, by vertex.
        recomputation: what checkpoints do.
        rematerialisation: what is evaluated once more to keep less, if anything.
        inside: outputs that are no seams though the network goes on with them.
        edges_to: by seam, the uses whose errors the engine adds up.
    """

    def __init__(self, schedule: Schedule, programs: LocalPrograms) -> None:
        self.graph: PCGraph = schedule.graph
        self.programs = programs
        self.predicted: dict[str, VertexLines] = {}
        self._planned: dict[str, LocalProgram] = {}
        self._numbers: dict[Any, int] = {}  # of forms of vertices
        self._known: dict[Any, tuple[LocalProgram, Any]] = {}
        self._settings = settings()
        self.values: dict[Ref, str] = {}  # value -> name; pass-through outputs share a name
        self.rematerialisation: Rematerialisation | None = None
        self.contiguous = [_contiguous(self.graph.spec(ref)) for ref in self.graph.outputs]
        order = [name for name, _ in schedule.order if self.graph[name].role is Role.OPERATION]
        self.inside: set[Ref] = set()
        self._cut(order, candidates(self.graph))
        # A vertex that adds to one operand more than once must start from what was collected there, which is out of
        # reach at a seam: such a value stays inside.
        if self.split:
            repeated = {(name, i) for name, local in self.plan().items() for i in local.repeated}
            self.inside = {e.source for edges in self.edges_to.values() for e in edges if e[1:] in repeated}
            self._cut(order, self.split - self.inside)

    def _cut(self, order: Sequence[str], split: frozenset[Ref]) -> None:
        graph = self.graph
        seams = Seams.of(graph, split)
        self.split = seams.split
        place = {name: s for s, names in enumerate(seams.segments) for name in names}
        self.segments: list[list[str]] = [[] for _ in seams.segments]
        for name in order:
            self.segments[place[name]].append(name)
        top = len(self.segments) - 1
        self.outputs_of: list[list[int]] = [[] for _ in self.segments]
        for k, ref in enumerate(graph.outputs):
            if graph.carries_error(ref) and not self.returned(ref):
                self.outputs_of[place.get(ref.vertex, top)].append(k)
        self.operands = {v.name: _operands(v, split) for v in graph.vertices.values() if v.role is Role.OPERATION}
        self._specs = {name: tuple(map(graph.spec, refs)) for name, (refs, _) in self.operands.items()}
        self._forms: dict[str, int] = {}
        self.recomputation = Recomputation(graph, self.segments)
        self._lay_edges()

    def returned(self, ref: Ref) -> bool:
        """Whether an output is a tensor of the caller's that comes back as it is."""
        return self.graph[ref.vertex].role is not Role.OPERATION and ref not in self.inside

    def _lay_edges(self) -> None:
        """List what every segment hands to the engine, single uses in the order in which they learn."""
        graph = self.graph
        self.ends: list[list[Ref | Edge]] = [[] for _ in self.segments]
        self.edges_to: dict[Ref, list[Edge]] = {ref: [] for ref in self.split}
        leaves = [Ref(v.name) for v in graph.vertices.values() if v.role in (Role.INPUT, Role.PARAMETER)]
        # Not those that no error reaches: autograd would have no edge to them. (A state that is detached where it is
        # used hangs on the call before, whose values are gone.)
        reached = [ref for ref in leaves if graph.carries_error(ref) and ref.vertex in graph.depth]
        self.ends[0] = [ref for ref in reached if ref not in self.split]
        for s in reversed(range(len(self.segments))):
            for name in self.segments[s]:
                for i, ref in enumerate(self.operands[name][0]):
                    if ref in self.split:
                        edge = Edge(ref, name, i)
                        self.edges_to[ref].append(edge)
                        self.ends[0 if graph[ref.vertex].role is not Role.OPERATION else s].append(edge)

    # -- prediction ----------------------------------------------------------------------------
    def predict(self) -> Stitched:
        """Lines that evaluate every vertex once. They are those of the kinds that then learn."""
        parts = []
        self.settle()
        self._planned = learning = self.plan()
        for vertex in self.graph.vertices.values():
            if vertex.role is not Role.OPERATION:
                self.values[Ref(vertex.name)] = value_name(Ref(vertex.name))
                continue
            if vertex.differentiable:
                local = learning.get(vertex.name) or self.kind(vertex, (), ())
                lines = self._predict_lines(vertex, local)
            else:
                lines = self._native(vertex)
            setup = self.recomputation.before(vertex.name)
            parts.append(VertexLines(vertex.name, (*setup, *lines), setup=len(setup)))
        self.predicted = {part.vertex: part for part in parts}
        results = tuple(self.values[ref] for ref in self.graph.outputs)
        return Stitched(tuple(parts), results)

    def _native(self, vertex: Vertex) -> list[Line]:
        assert vertex.operation is not None
        refs = [Ref(vertex.name, k) for k in range(len(vertex.outputs))]
        for ref in refs:
            self.values[ref] = value_name(ref)
        operands = [self.values[ref] for ref in vertex.operands]
        return [native_line(vertex.operation, operands, tuple(self.values[r] for r in refs), vertex.multi)]

    def _predict_lines(self, vertex: Vertex, local: LocalProgram) -> list[Line]:
        names = self.local_names(vertex, local)
        for k, name in enumerate(local.outputs):
            ref = Ref(vertex.name, k)
            if k in local.first_outputs:
                names[name] = value_name(ref)
            self.values[ref] = names[name]
        return [line.renamed(names) for line in local.predict]

    def local_names(self, vertex: Vertex, local: LocalProgram) -> dict[str, str]:
        """Global names of a vertex's operands and temporaries."""
        refs, _ = self.operands[vertex.name]
        names = {f"a{i}": self.values[ref] for i, ref in enumerate(refs)}
        names.update((out, f"{out}_{vertex.name}") for out in local.temporaries)
        return names

    # -- learning ------------------------------------------------------------------------------
    @property
    def named(self) -> bool:
        """Whether the prediction has given the values their names."""
        return bool(self.values)

    def plan(self) -> dict[str, LocalProgram]:
        """The local program of every vertex, if the errors arrive as expected."""
        sweep = Sweep(self)
        while sweep.segment:
            sweep.advance(sweep.expected(sweep.segment - 1))
        return sweep.plan

    def settle(self) -> None:
        """Take note of torch's settings, on which local programs depend."""
        if self._settings != settings():
            self._settings = settings()
            self._known.clear()

    def kind(self, vertex: Vertex, errors: tuple[Error, ...], collected: tuple[Error, ...]) -> LocalProgram:
        """The local program of a vertex for these errors."""
        planned = self._planned.get(vertex.name)
        closed = planned.opaque if planned is not None else None
        # By identity, in which layouts come few: a long network asks for the same few kinds again and again.
        arriving = tuple((index, id(layout)) for index, layout in errors)
        key = (self._form(vertex), arriving, tuple((index, id(layout)) for index, layout in collected), closed)
        known = self._known.get(key)
        if known is None or known[0].opaque is not None:  # more may be known of the errors that it hands on
            assert vertex.operation is not None
            operands, places = self._specs[vertex.name], self.operands[vertex.name][1]
            kind = Kind(vertex.operation, operands, places, vertex.outputs, vertex.multi, errors, collected, closed)
            known = self._known[key] = self.programs.get(kind), (errors, collected)  # which keeps the identities
        return known[0]

    def _form(self, vertex: Vertex) -> Any:
        """What the kind of a vertex depends on besides errors; by identity, the graph keeps the objects."""
        form = self._forms.get(vertex.name)
        if form is None:
            specs, places = self._specs[vertex.name], self.operands[vertex.name][1]
            key = (id(vertex.operation), tuple(map(id, specs)), places, vertex.multi)
            form = self._forms[vertex.name] = self._numbers.setdefault(key, len(self._numbers))
        return form


def _operands(vertex: Vertex, split: frozenset[Ref]) -> tuple[tuple[Ref, ...], tuple[int, ...]]:
    """The different values that a vertex reads, and for each operand its place; every use of a split value counts."""
    items, places = distinct(tuple((ref, slot if ref in split else -1) for slot, ref in enumerate(vertex.operands)))
    return tuple(ref for ref, _ in items), places


def _contiguous(spec: TensorSpec) -> TensorSpec:
    """Layout of a freshly computed error of a value."""
    stride = tuple(torch.empty(spec.shape, device="meta").stride())
    return replace(spec, stride=stride, requires_grad=False)
