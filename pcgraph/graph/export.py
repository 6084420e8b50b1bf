"""Graphs for other libraries: analysis and drawing, never the hot path."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx

if TYPE_CHECKING:
    from .graph import PCGraph


def to_networkx(graph: PCGraph) -> networkx.MultiDiGraph:
    """One node per vertex (attributes ``role, op, depth, shape, module_path, differentiable``), one edge per use.

    Edges are keyed by operand index, so ``x * x`` yields two. Outputs carry ``output=True``.
    """
    result = networkx.MultiDiGraph(name=graph.name)
    outputs = {ref.vertex for ref in graph.outputs}
    for vertex in graph.vertices.values():
        result.add_node(
            vertex.name,
            role=vertex.role.value,
            op=vertex.op,
            depth=graph.depth.get(vertex.name),
            shape=[None if spec is None else list(spec.shape) for spec in vertex.outputs],
            module_path=vertex.module_path,
            differentiable=vertex.differentiable,
            output=vertex.name in outputs,
        )
        for operand, ref in enumerate(vertex.operands):
            result.add_edge(ref.vertex, vertex.name, key=operand, output=ref.output)
    return result
