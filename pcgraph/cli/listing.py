"""What `pcgraph inspect` says of each vertex, whichever format it is printed in."""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ..graph import Role

if TYPE_CHECKING:
    from ..graph import ParameterUse, PCGraph, Vertex


class Row(NamedTuple):
    """One input or operation vertex.

    Attributes:
        vertex: the vertex itself.
        parameters: qualified names of the parameters that it uses, in operand order.
        depth: longest distance to an output; None if no output's error reaches it.
        update_time: inference step at which its parameters are updated; None if it updates none.
        relays: identity vertices that levelling puts behind it.
    """

    vertex: Vertex
    parameters: tuple[str, ...]
    depth: int | None
    update_time: int | None
    relays: int

    def short_parameters(self) -> tuple[str, ...]:
        """Parameter names as seen from the vertex's own module: ``weight`` instead of ``layer1.fc.weight``."""
        prefix = f"{self.vertex.module_path}."
        return tuple(name.removeprefix(prefix) for name in self.parameters)


def rows(graph: PCGraph) -> list[Row]:
    """Inputs and operations in forward order (parameters and state are listed where they are used)."""
    uses: dict[str, list[ParameterUse]] = defaultdict(list)
    for use in graph.parameter_uses:
        uses[use.child].append(use)
    result = []
    for vertex in graph.vertices.values():
        if vertex.role in (Role.PARAMETER, Role.STATE):
            continue
        mine = uses.get(vertex.name, [])
        result.append(
            Row(
                vertex=vertex,
                parameters=tuple(graph[use.parameter].module_path for use in mine),
                depth=graph.depth.get(vertex.name),
                update_time=next((use.update_time for use in mine if use.update_time is not None), None),
                relays=graph.relays(vertex.name),
            )
        )
    return result


def levels(listed: list[Row]) -> list[tuple[int | None, list[Row]]]:
    """Group by depth, deepest first, as the prediction runs; vertices that no error reaches come last."""
    groups: dict[int | None, list[Row]] = defaultdict(list)
    for row in listed:
        groups[row.depth].append(row)
    reached = sorted((depth for depth in groups if depth is not None), reverse=True)
    order: list[int | None] = [*reached, *([None] if None in groups else [])]
    return [(depth, groups[depth]) for depth in order]


def elements(graph: PCGraph) -> int:
    """Parameter elements of the graph, a shared parameter counted once."""
    return sum(prod(spec.shape) for v in graph.role(Role.PARAMETER) for spec in v.outputs if spec is not None)


def shape(vertex: Vertex) -> str:
    """Every output's dtype and shape, a ``*`` behind those that have an error node."""
    return ", ".join("-" if spec is None else f"{spec}{'*' if spec.requires_grad else ''}" for spec in vertex.outputs)
