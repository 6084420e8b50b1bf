"""A graph as a table for people, with the summary below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .listing import Row, elements, levels, rows, shape

if TYPE_CHECKING:
    from ..graph import PCGraph

_NONE = "-"


def vertex_table(graph: PCGraph, *, by_level: bool) -> Table:
    """One line per vertex; by level: deepest first, a rule between two levels.

    A ``*`` behind a shape marks a value with an error node.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{graph.name}: T={graph.steps}", title_justify="left")
    for name in ("name", "operation", "module path", "shape", "parameters"):
        table.add_column(name, overflow="fold")
    for name in ("depth", "update time", "relays"):
        table.add_column(name, justify="right")
    listed = rows(graph)
    for _, group in levels(listed) if by_level else [(None, listed)]:
        for row in group:
            table.add_row(*map(Text, _cells(row)))
        if by_level:
            table.add_section()
    return table


def _cells(row: Row) -> tuple[str, ...]:
    vertex = row.vertex
    return (
        vertex.name,
        vertex.op,
        vertex.module_path or _NONE,
        shape(vertex),
        ", ".join(row.short_parameters()) or _NONE,
        _NONE if row.depth is None else str(row.depth),
        _NONE if row.update_time is None else str(row.update_time),
        str(row.relays) if row.relays else _NONE,
    )


def summary_table(graph: PCGraph) -> RenderableType:
    """Counts of the whole graph."""
    counts = graph.summary()
    lines = [
        ("vertices", f"{counts['vertices']:,}"),
        ("levels", f"{counts['levels']:,}"),
        ("inference steps T", f"{counts['steps']:,}"),
        ("relays", f"{counts['relays']:,}"),
        ("parameters", f"{counts['parameters']:,} ({elements(graph):,} elements)"),
        ("parameter uses", f"{counts['parameter_uses']:,}"),
        ("opaque vertices", f"{counts['opaque']:,}"),
        ("non-differentiable", f"{counts['non_differentiable']:,}"),
    ]
    table = Table.grid(padding=(0, 2))
    for name, value in lines:
        table.add_row(name, value)
    return table


def opaque_vertices(graph: PCGraph) -> list[Text]:
    """Which vertices could not be opened up, why, and the user's lines that made them."""
    return [
        Text(f"opaque %{vertex.name} = {vertex.op}: {vertex.operation.opaque}  {vertex.where()}".rstrip())
        for vertex in graph.vertices.values()
        if vertex.operation is not None and vertex.operation.opaque is not None
    ]
