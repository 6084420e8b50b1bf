"""Stitching: local programs, one per vertex, become one prediction and one learning program.

Names tell what is what: ``x_<vertex>`` is a value, ``e_<vertex>`` the first error that arrives at it (in PyTorch's
sign, the negative of the paper's error node), ``s_<vertex>`` a sum of errors, ``t<n>_<vertex>`` a temporary of one
vertex; further outputs of a vertex are numbered, ``x1_<vertex>``. ``arriving<k>`` is the error of output k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..graph import PCGraph, Ref, Role, TensorSpec, Vertex
from ..schedule import Schedule
from .kinds import Error, Kind, distinct
from .lines import Line, native_line
from .local import LocalProgram, LocalPrograms


@dataclass(frozen=True)
class VertexLines:
    """The lines of one vertex, for emission and for the static check of locality.

    Attributes:
        vertex: whose lines these are.
        lines: over global names.
        errors: the complete errors of this vertex's own values, by value: what the lines start from.
        collected: what the values of its operands had collected before, where they had.
        handed: what those values have collected after.
    """

    vertex: str
    lines: tuple[Line, ...]
    errors: Mapping[Ref, str] = field(default_factory=dict)
    collected: Mapping[Ref, str] = field(default_factory=dict)
    handed: Mapping[Ref, str] = field(default_factory=dict)


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


def error_name(ref: Ref) -> str:
    """Name of the error that has arrived at a value."""
    return f"e{ref.output or ''}_{ref.vertex}"


class Stitcher:
    """Builds both programs of one schedule.

    Args:
        schedule: which vertices learn, and in which order.
        programs: cache of local programs.
    """

    def __init__(self, schedule: Schedule, programs: LocalPrograms) -> None:
        self.graph: PCGraph = schedule.graph
        self._order = [name for name, _ in schedule.order]
        self._programs = programs
        self._values: dict[Ref, str] = {}  # value -> name; pass-through outputs share a name
        self._operands = {
            v.name: distinct(v.operands) for v in self.graph.vertices.values() if v.role is Role.OPERATION
        }
        self._specs = {name: tuple(map(self.graph.spec, refs)) for name, (refs, _) in self._operands.items()}

    # -- prediction ----------------------------------------------------------------------------
    def predict(self, layouts: Sequence[TensorSpec]) -> Stitched:
        """Lines that evaluate every vertex once.

        Args:
            layouts: expected layout of each output's error (it decides nothing here, but the same kinds are
                then used for learning).
        """
        parts = []
        learning = self._plan(layouts)
        for vertex in self.graph.vertices.values():
            if vertex.role is not Role.OPERATION:
                self._values[Ref(vertex.name)] = value_name(Ref(vertex.name))
                continue
            if vertex.differentiable:
                local = learning.get(vertex.name) or self._kind(vertex, (), ())
                lines = self._predict_lines(vertex, local)
            else:
                lines = self._native(vertex)
            parts.append(VertexLines(vertex.name, tuple(lines)))
        results = tuple(self._values[ref] for ref in self.graph.outputs)
        return Stitched(tuple(parts), results)

    def _native(self, vertex: Vertex) -> list[Line]:
        assert vertex.operation is not None
        refs = [Ref(vertex.name, k) for k in range(len(vertex.outputs))]
        for ref in refs:
            self._values[ref] = value_name(ref)
        operands = [self._values[ref] for ref in vertex.operands]
        return [native_line(vertex.operation, operands, tuple(self._values[r] for r in refs), vertex.multi)]

    def _predict_lines(self, vertex: Vertex, local: LocalProgram) -> list[Line]:
        names = self._local_names(vertex, local)
        for k, name in enumerate(local.outputs):
            ref = Ref(vertex.name, k)
            own = name[0] in "ty" and name not in local.outputs[:k]
            if own:
                names[name] = value_name(ref)
            self._values[ref] = names[name]
        return [line.renamed(names) for line in local.predict]

    def _local_names(self, vertex: Vertex, local: LocalProgram) -> dict[str, str]:
        refs, _ = self._operands[vertex.name]
        names = {f"a{i}": self._values[ref] for i, ref in enumerate(refs)}
        for line in (*local.predict, *local.learn):
            for out in line.outs:
                names[out] = f"{out}_{vertex.name}"
        return names

    # -- learning ------------------------------------------------------------------------------
    def _plan(self, layouts: Sequence[TensorSpec | None]) -> dict[str, LocalProgram]:
        plan: dict[str, LocalProgram] = {}
        self._sweep(layouts, plan, {})
        return plan

    def learn(self, layouts: Sequence[TensorSpec | None]) -> tuple[Stitched, dict[Ref, str]]:
        """Lines that compute every live error and every parameter's gradient.

        Args:
            layouts: layout of the error that arrives at each output, None where none does.

        Returns:
            The program (its results are the gradients of the differentiable inputs and parameters, in the order
            of the graph's vertices) and the name of every value's complete error.
        """
        names: dict[Ref, str] = {}
        parts, arrived = self._sweep(layouts, {}, names)
        leaves = [
            v for v in self.graph.vertices.values() if v.role in (Role.INPUT, Role.PARAMETER) and v.differentiable
        ]
        results = tuple(arrived[Ref(v.name)].name if Ref(v.name) in arrived else None for v in leaves)
        return Stitched(tuple(parts), results), names

    def _sweep(
        self, layouts: Sequence[TensorSpec | None], plan: dict[str, LocalProgram], finished: dict[Ref, str]
    ) -> tuple[list[VertexLines], dict[Ref, _Arrived]]:
        """Run over the diagonal ``(v, d_v)`` in order, handing errors from children to parents.

        With an empty `plan` dictionary to fill, only kinds are looked up (values have no names yet).
        """
        stitching = bool(self._values)
        self._sums: set[str] = set()
        arrived: dict[Ref, _Arrived] = {}
        for k, (ref, layout) in enumerate(zip(self.graph.outputs, layouts, strict=True)):
            if layout is not None and self.graph.carries_error(ref):
                arrived[ref] = _Arrived(f"arriving{k}", layout, False)
        parts: list[VertexLines] = []
        for name in self._order:
            vertex = self.graph[name]
            if vertex.role is not Role.OPERATION:
                continue
            errors = tuple(
                (k, arrived[Ref(name, k)].layout) for k in range(len(vertex.outputs)) if Ref(name, k) in arrived
            )
            if not errors:
                continue
            refs, _ = self._operands[name]
            local = self._kind(vertex, errors, ())
            collected = tuple((i, arrived[refs[i]].layout) for i in sorted(local.repeated) if refs[i] in arrived)
            if collected:
                local = self._kind(vertex, errors, collected)
            plan[name] = local
            if stitching:
                parts.append(self._learn_lines(vertex, local, errors, collected, arrived, finished))
            else:
                self._hand_on(refs, local, {c for c, _ in collected}, arrived, {}, [])
        return parts, arrived

    def _learn_lines(
        self,
        vertex: Vertex,
        local: LocalProgram,
        errors: Sequence[Error],
        collected: Sequence[Error],
        arrived: dict[Ref, _Arrived],
        finished: dict[Ref, str],
    ) -> VertexLines:
        refs, _ = self._operands[vertex.name]
        names = self._local_names(vertex, local)
        for k, output in enumerate(local.outputs):
            names[output] = self._values[Ref(vertex.name, k)]
        own: dict[Ref, str] = {}
        for k, _ in errors:
            ref = Ref(vertex.name, k)
            names[f"g{k}"] = own[ref] = arrived[ref].name
        finished.update(own)
        for i, _ in collected:
            names[f"c{i}"] = arrived[refs[i]].name
        lines: list[Line] = []
        # Give an error that arrives at a value for the first time the value's name.
        for i, local_name in enumerate(local.errors):
            fresh = local_name is not None and local_name[0] == "t" and local_name not in local.errors[:i]
            if fresh and refs[i] not in arrived:
                names[local_name] = error_name(refs[i])  # type: ignore[index]
        lines += [line.renamed(names) for line in local.learn]
        before = {ref: arrived[ref].name for ref in refs if ref in arrived}
        self._hand_on(refs, local, {i for i, _ in collected}, arrived, names, lines)
        after = {ref: arrived[ref].name for ref in refs if ref in arrived}
        return VertexLines(vertex.name, tuple(lines), own, before, after)

    def _hand_on(
        self,
        refs: Sequence[Ref],
        local: LocalProgram,
        collected: set[int],
        arrived: dict[Ref, _Arrived],
        names: Mapping[str, str],
        lines: list[Line],
    ) -> None:
        """Add the errors of a vertex's operands to what their values have collected, in autograd's order."""
        for i, ref in enumerate(refs):
            local_name, layout = local.errors[i], local.layouts[i]
            if local_name is None or layout is None:
                continue
            name = names.get(local_name, local_name)
            before = arrived.get(ref)
            if before is None or i in collected:
                arrived[ref] = _Arrived(name, layout, False)
            elif before.owned:  # a sum that nobody else holds: add in place
                lines.append(Line((), "%s.add_(%s)", (before.name, name)))
            else:
                total = f"s{ref.output or ''}_{ref.vertex}"
                while total in self._sums:
                    total = f"s{total}"
                self._sums.add(total)
                lines.append(Line((total,), "%s + %s", (before.name, name)))
                arrived[ref] = _Arrived(total, self._programs.sum_layout(before.layout, layout), True)

    def _kind(self, vertex: Vertex, errors: tuple[Error, ...], collected: tuple[Error, ...]) -> LocalProgram:
        assert vertex.operation is not None
        _, places = self._operands[vertex.name]
        operands = self._specs[vertex.name]
        kind = Kind(vertex.operation, operands, places, vertex.outputs, vertex.multi, errors, collected)
        return self._programs.get(kind)


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What a value has collected so far: the name of the error, its layout, and whether it may be added to."""

    name: str
    layout: TensorSpec
    owned: bool
