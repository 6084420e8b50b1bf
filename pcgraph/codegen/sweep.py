"""A sweep over the diagonal ``(v, d_v)``: from the outputs' errors to the parameters', vertex by vertex.

It goes on segment by segment, since the errors at a seam are known only when everything above it has learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..graph import Ref, TensorSpec, Vertex
from ..graph.vertex import Checkpoint
from .lines import Line
from .local import LocalProgram
from .seams import Edge

if TYPE_CHECKING:
    from .stitch import Stitcher


@dataclass(frozen=True)
class VertexLines:
    """The lines of one vertex, for emission and for the static check of locality.

    Attributes:
        vertex: whose lines these are.
        lines: over global names.
        errors: the complete errors of this vertex's own values, by value: what the lines start from.
        collected: what the values of its operands had collected before, where they had.
        handed: what those values have collected after.
        again: this is the prediction of the vertex, evaluated once more by a checkpoint.
        edges: errors of uses that go to the engine one by one, by the value's place among the vertex's operands.
    """

    vertex: str
    lines: tuple[Line, ...]
    errors: Mapping[Ref, str] = field(default_factory=dict)
    collected: Mapping[Ref, str] = field(default_factory=dict)
    handed: Mapping[Ref, str] = field(default_factory=dict)
    edges: Mapping[int, str] = field(default_factory=dict)
    again: bool = False
    setup: int = 0  # lines at the beginning that belong to a checkpoint, not to the vertex

    @property
    def evaluation(self) -> tuple[Line, ...]:
        """The vertex's own lines."""
        return self.lines[self.setup :]


@dataclass(frozen=True)
class SegmentLines:
    """What one segment does while learning.

    Attributes:
        parts: lines per vertex, in order.
        results: names of what it hands to the engine, one per edge of the segment; None where no error arrives.
        flight: names that segments below go on with.
    """

    parts: tuple[VertexLines, ...]
    results: tuple[str | None, ...]
    flight: tuple[str, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines, in order."""
        return tuple(line for part in self.parts for line in part.lines)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What a value has collected so far: the name of the error, its layout, and whether it may be added to."""

    name: str
    layout: TensorSpec
    owned: bool


class Sweep:
    """One pass from the uppermost segment down to segment 0.

    Args:
        net: names and kinds of all vertices. Before it has named the values, only kinds are looked up.

    Attributes:
        plan: local program of every vertex that has learned.
    """

    def __init__(self, net: Stitcher) -> None:
        self._net = net
        self.plan: dict[str, LocalProgram] = {}
        self._arrived: dict[Ref, _Arrived] = {}
        self._edges: dict[Edge, _Arrived] = {}
        self._sums: set[str] = set()
        self.segment = len(net.segments)

    def expected(self, segment: int) -> tuple[TensorSpec | None, ...]:
        """Layouts to expect of the errors at a segment's outputs, given everything above has learned."""
        return tuple(self._expected(k) for k in self._net.outputs_of[segment])

    def _expected(self, k: int) -> TensorSpec:
        ref = self._net.graph.outputs[k]
        layout: TensorSpec | None = None
        for edge in self._net.edges_to.get(ref, ()):
            arrived = self._edges.get(edge)
            if arrived is not None:
                layout = arrived.layout if layout is None else self._net.programs.sum_layout(layout, arrived.layout)
        return layout if layout is not None else self._net.contiguous[k]

    def advance(self, layouts: Sequence[TensorSpec | None]) -> SegmentLines:
        """Let the next segment learn.

        Args:
            layouts: of the errors that arrive at its outputs, in order; None where none does.
        """
        self.segment -= 1
        self._net.settle()
        net, here = self._net, self.segment
        for k, layout in zip(net.outputs_of[here], layouts, strict=True):
            if layout is not None:
                self._arrived[net.graph.outputs[k]] = _Arrived(f"arriving{k}", layout, False)
        parts: list[VertexLines] = []
        done: set[Checkpoint] = set()
        for name in net.segments[here]:
            part = self._learn(name)
            if part is None:
                continue
            region = net.recomputation.of.get(name)
            if net.named and region is not None and region not in done:
                done.add(region)
                parts += net.recomputation.again(region, net.predicted)
            parts.append(part)
        results = tuple(self._result(end) for end in net.ends[here])
        waiting = (*self._arrived.values(), *self._edges.values()) if here else ()
        flight = tuple(dict.fromkeys(arrived.name for arrived in waiting))
        lines = SegmentLines(net.recomputation.pruned(parts), results, flight)
        return lines if net.rematerialisation is None else net.rematerialisation.insert(lines)

    def _result(self, end: Ref | Edge) -> str | None:
        arrived = self._edges.pop(end, None) if isinstance(end, Edge) else self._arrived.get(end)
        return arrived.name if arrived is not None else None

    def _learn(self, name: str) -> VertexLines | None:
        net, arrived = self._net, self._arrived
        vertex = net.graph[name]
        outputs = [Ref(name, k) for k in range(len(vertex.outputs))]
        errors = tuple((k, arrived[ref].layout) for k, ref in enumerate(outputs) if ref in arrived)
        if not errors:
            return None
        refs, _ = net.operands[name]
        local = net.kind(vertex, errors, ())
        collected = tuple((i, arrived[refs[i]].layout) for i in sorted(local.repeated) if refs[i] in arrived)
        if collected:
            local = net.kind(vertex, errors, collected)
        self.plan[name] = local
        taken = {i for i, _ in collected}
        own = {outputs[k]: arrived[outputs[k]].name for k, _ in errors}
        before = {ref: arrived[ref].name for ref in refs if ref in arrived}
        lines: list[Line] = []
        names: dict[str, str] = {}
        if net.named:
            names = self._names(vertex, local, [k for k, _ in errors], taken)
            lines = [line.renamed(names) for line in local.learn]
        edges = self._hand_on(vertex, local, taken, names, lines)
        after = {ref: arrived[ref].name for ref in refs if ref in arrived}
        for ref in own:
            del arrived[ref]
        return VertexLines(name, tuple(lines), own, before, after, edges)

    def _names(self, vertex: Vertex, local: LocalProgram, errors: Sequence[int], taken: set[int]) -> dict[str, str]:
        """Global names of everything that the vertex's local program reads and makes."""
        net, arrived = self._net, self._arrived
        refs, _ = net.operands[vertex.name]
        names = net.local_names(vertex, local)
        for k, output in enumerate(local.outputs):
            names[output] = net.values[Ref(vertex.name, k)]
        for k in errors:
            names[f"g{k}"] = arrived[Ref(vertex.name, k)].name
        for i in taken:
            names[f"c{i}"] = arrived[refs[i]].name
        # Give an error that arrives at a value for the first time the value's name.
        for i, local_name in local.first_errors:
            if refs[i] not in arrived and refs[i] not in net.split:
                names[local_name] = error_name(refs[i])
        return names

    def _hand_on(
        self, vertex: Vertex, local: LocalProgram, taken: set[int], names: Mapping[str, str], lines: list[Line]
    ) -> dict[int, str]:
        """Add the errors of a vertex's operands to what their values have collected, in autograd's order."""
        net, arrived = self._net, self._arrived
        edges: dict[int, str] = {}
        for i, ref in enumerate(net.operands[vertex.name][0]):
            local_name, layout = local.errors[i], local.layouts[i]
            if local_name is None or layout is None:
                continue
            name = names.get(local_name, local_name)
            before = arrived.get(ref)
            if ref in net.split:
                self._edges[Edge(ref, vertex.name, i)] = _Arrived(name, layout, False)
                edges[i] = name
            elif before is None or i in taken:
                arrived[ref] = _Arrived(name, layout, False)
            elif before.owned:  # a sum that nobody else holds: add in place
                lines.append(Line((), "%s.add_(%s)", (before.name, name)))
            else:
                total = f"s{ref.output or ''}_{ref.vertex}"
                while total in self._sums:
                    total = f"s{total}"
                self._sums.add(total)
                lines.append(Line((total,), "%s + %s", (before.name, name)))
                arrived[ref] = _Arrived(total, net.programs.sum_layout(before.layout, layout), True)
        return edges


def error_name(ref: Ref) -> str:
    """Name of the error that has arrived at a value."""
    return f"e{ref.output or ''}_{ref.vertex}"
