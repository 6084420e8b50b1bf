"""Depth: the longest distance from a vertex to an output. It is also the vertex's update time.

Source: Salvatori et al. 2022 (reverse differentiation via predictive coding), levelled graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .graph import PCGraph


def depths(graph: PCGraph) -> dict[str, int]:
    """Longest distance (edges) from each differentiable vertex to a differentiable output.

    Only uses that carry a gradient count. A vertex from which no output can be reached has no
    entry: it never receives an error. Linear in vertices and uses; no recursion.
    """
    result: dict[str, int] = {}
    for ref in graph.outputs:
        if graph.carries_error(ref):
            result[ref.vertex] = 0
    for vertex in reversed(list(graph.vertices.values())):
        depth = result.get(vertex.name)
        if depth is None:
            continue
        for ref in vertex.operands:
            if graph.carries_error(ref) and result.get(ref.vertex, -1) < depth + 1:
                result[ref.vertex] = depth + 1
    return result
