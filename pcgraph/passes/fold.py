"""Folding: value nodes on some vertices only. The others become a part of the one vertex that reads them.

With a value node per layer a vertex predicts ``mu_v = W f(x_parent) + b``, as in arXiv 2103.03725, equation 1: the
activation function is no vertex of its own, and the prediction of ``f(x)`` has no error. Fewer nodes relax, in fewer
steps; with Z-IL the gradients are the same, since they do not depend on where value nodes are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..graph import Operation, PCGraph, Ref, Role, Slot, Use, Vertex
from ..graph.keys import Pool
from ..graph.vertex import substituted
from .base import Pass


class Fold(Pass):
    """Fold every vertex without parameters into its reader, if it has just one, so that layers are what is left.

    A vertex is folded only where nobody can tell the difference but by looking for its value node: it returns one
    tensor, to one operand of one vertex, and not to the user; it writes nothing; what it reads is neither written to
    nor read by others between it and its reader, so that errors are added up in the same order as before; and no random
    numbers are drawn in between if it draws some.

    Args:
        keep: (graph, vertex) -> whether a vertex is to have its value node; by default those that read a parameter.
    """

    name = "fold"

    def __init__(self, keep: Callable[[PCGraph, Vertex], bool] | None = None) -> None:
        self._keep = keep or reads_a_parameter

    def run(self, graph: PCGraph) -> PCGraph:
        place = {name: k for k, name in enumerate(graph.vertices)}
        draws = [k for k, v in enumerate(graph.vertices.values()) if v.operation is not None and v.operation.random]
        written = {v.operands[i].vertex for v in graph.vertices.values() if v.operation for i in v.operation.writes}
        pool, vertices = Pool(), []
        folded: dict[Ref, Vertex] = {}
        for vertex in graph.vertices.values():
            if any(ref in folded for ref in vertex.operands):
                vertex = _with_operands(vertex, folded, pool)
            use = self._reader(graph, vertex)
            if (
                use is None
                or written.intersection(ref.vertex for ref in vertex.operands)
                or _overtakes(graph, vertex, place[use.child], place)
                or (_random(vertex) and any(place[vertex.name] < k < place[use.child] for k in draws))
            ):
                vertices.append(vertex)
            else:
                folded[use.source] = vertex
        return PCGraph(vertices, graph.outputs, graph.name)

    def ensures(self, graph: PCGraph) -> str | None:
        for vertex in graph.vertices.values():
            if vertex.operation is not None and any(part.writes for part in vertex.operation.parts[1:]):
                return f"%{vertex.name} writes inside of its formula"
        return None

    def _reader(self, graph: PCGraph, vertex: Vertex) -> Use | None:
        """The only use of a vertex that may be folded."""
        uses, operation = graph.uses[vertex.name], vertex.operation
        if operation is None or len(uses) != 1 or self._keep(graph, vertex):
            return None
        child = graph[uses[0].child]
        ends = any(ref.vertex == vertex.name for ref in graph.outputs)
        alone = vertex.name in graph.depth and child.name in graph.depth and child.operation is not None
        plain = not (ends or vertex.multi or vertex.effect or operation.writes or operation.opaque)
        closed = child.operation is None or child.operation.opaque or vertex.checkpoint != child.checkpoint
        return uses[0] if alone and plain and not closed else None


def reads_a_parameter(graph: PCGraph, vertex: Vertex) -> bool:
    """Whether a vertex is a layer: one of its operands is learned."""
    return any(graph[ref.vertex].role is Role.PARAMETER for ref in vertex.operands)


def _overtakes(graph: PCGraph, vertex: Vertex, reader: int, place: dict[str, int]) -> bool:
    """Whether another vertex between this one and its reader reads the same value."""
    own = place[vertex.name]
    return any(
        own < place[use.child] < reader
        for ref in vertex.operands
        if graph.carries_error(ref)
        for use in graph.uses[ref.vertex]
        if use.source == ref
    )


def _random(vertex: Vertex) -> bool:
    return vertex.operation is not None and vertex.operation.random


def _with_operands(vertex: Vertex, folded: dict[Ref, Vertex], pool: Pool) -> Vertex:
    """A vertex that reads what folded vertices read, in their places."""
    assert vertex.operation is not None
    operands: list[Ref] = []
    places: list[Slot | Operation] = []
    random = vertex.operation.random
    for ref in vertex.operands:
        inner = folded.get(ref)
        if inner is None or inner.operation is None:
            places.append(Slot(len(operands)))
            operands.append(ref)
        else:
            slots = [Slot(len(operands) + i) for i in range(len(inner.operands))]
            places.append(_formula(inner.operation, slots))
            operands += inner.operands
            random = random or inner.operation.random
    writes = tuple(item.index for i in vertex.operation.writes if isinstance(item := places[i], Slot))
    operation = replace(_formula(vertex.operation, places), writes=writes, random=random)
    return replace(vertex, operands=tuple(operands), operation=pool.operation(operation))


def _formula(operation: Operation, places: Sequence[Slot | Operation]) -> Operation:
    """An operation with something else in its slots."""

    def change(item: Slot | Operation) -> Any:
        return places[item.index] if isinstance(item, Slot) else _formula(item, places)

    return replace(operation, args=substituted(operation.args, change), kwargs=substituted(operation.kwargs, change))
