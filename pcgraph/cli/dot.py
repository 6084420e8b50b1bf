"""A graph in Graphviz' dot language."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..graph import Role
from .listing import Row, levels, rows, shape

if TYPE_CHECKING:
    from ..graph import PCGraph, Ref


def to_dot(graph: PCGraph, *, by_level: bool) -> str:
    """Inputs and operations as boxes, uses as edges; by level: vertices of one depth in one rank.

    Outputs have a double frame, vertices without an error node a dashed one, and an edge that levelling
    lengthens says by how many relays. Parameters stand inside the vertex that uses them.
    """
    listed = rows(graph)
    outputs = {ref.vertex for ref in graph.outputs}
    lines = [f"digraph {_quote(graph.name)} {{", "  node [shape=box, fontname=monospace];"]
    lines += [f"  {_quote(row.vertex.name)} [{_attributes(row, row.vertex.name in outputs)}];" for row in listed]
    for row in listed:
        for ref in row.vertex.operands:
            if graph[ref.vertex].role not in (Role.PARAMETER, Role.STATE):
                lines.append(f"  {_quote(ref.vertex)} -> {_quote(row.vertex.name)}{_relays(graph, ref, row)};")
    if by_level:
        for depth, group in levels(listed):
            if depth is not None:
                lines.append("  { rank=same; " + " ".join(f"{_quote(row.vertex.name)};" for row in group) + " }")
    return "\n".join([*lines, "}"])


def _attributes(row: Row, output: bool) -> str:
    vertex = row.vertex
    head = vertex.op if vertex.role is Role.OPERATION else f"{vertex.role.value} {vertex.name}"
    text = [head, vertex.module_path, shape(vertex), ", ".join(row.short_parameters())]
    if row.depth is not None:
        text.append(f"d={row.depth}")
    attributes = ["label=" + _quote("\n".join(part for part in text if part))]
    if output:
        attributes.append("peripheries=2")
    if not vertex.differentiable:
        attributes.append("style=dashed")
    return ", ".join(attributes)


def _relays(graph: PCGraph, ref: Ref, row: Row) -> str:
    source = graph.depth.get(ref.vertex)
    if source is None or row.depth is None or not graph.carries_error(ref):
        return ""
    gap = source - row.depth - 1
    return f' [label="{gap} relays"]' if gap else ""


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
