"""A graph as plain data for JSON."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from ..graph import Role
from .listing import Row, elements, levels, rows

if TYPE_CHECKING:
    from ..graph import PCGraph, TensorSpec


def describe(graph: PCGraph, *, by_level: bool) -> dict[str, Any]:
    """``name, summary, parameters`` (with every use), ``vertices, outputs`` and, with `by_level`, ``levels``."""
    listed = rows(graph)
    result: dict[str, Any] = {
        "name": graph.name,
        "summary": {**graph.summary(), "parameter_elements": elements(graph)},
        "parameters": _parameters(graph),
        "vertices": [_vertex(row) for row in listed],
        "outputs": [{"vertex": ref.vertex, "output": ref.output} for ref in graph.outputs],
    }
    if by_level:
        result["levels"] = [
            {"depth": depth, "vertices": [row.vertex.name for row in group]} for depth, group in levels(listed)
        ]
    return result


def _parameters(graph: PCGraph) -> list[dict[str, Any]]:
    uses: dict[str, list[dict[str, Any]]] = {vertex.name: [] for vertex in graph.role(Role.PARAMETER)}
    for use in graph.parameter_uses:
        uses[use.parameter].append(
            {"vertex": use.child, "operand": use.operand, "update_time": use.update_time},
        )
    return [
        {
            "path": vertex.module_path,
            **_tensor(spec),
            "elements": prod(spec.shape),
            "uses": uses[vertex.name],
        }
        for vertex in graph.role(Role.PARAMETER)
        for spec in vertex.outputs
        if spec is not None
    ]


def _vertex(row: Row) -> dict[str, Any]:
    vertex = row.vertex
    return {
        "name": vertex.name,
        "role": vertex.role.value,
        "operation": vertex.op,
        "module_path": vertex.module_path,
        "source": None if vertex.source is None else str(vertex.source),
        "operands": [{"vertex": ref.vertex, "output": ref.output} for ref in vertex.operands],
        "outputs": [None if spec is None else _tensor(spec) for spec in vertex.outputs],
        "differentiable": vertex.differentiable,
        "opaque": None if vertex.operation is None else vertex.operation.opaque,
        "parameters": list(row.parameters),
        "depth": row.depth,
        "update_time": row.update_time,
        "relays": row.relays,
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch.")}
