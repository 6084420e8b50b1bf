"""Levelling: identity vertices on every edge that spans more than one level.

Source: Salvatori et al., AAAI 2022. Without it an error arrives too early and Z-IL is wrong.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph import PCGraph, Ref, Role, Vertex
from .base import Pass


class Level(Pass):
    """Make the relays explicit: the long edges that leave one value share one chain of identity vertices.

    Parameters and state do not move during inference, so their edges need no relays.
    """

    name = "level"

    def run(self, graph: PCGraph) -> PCGraph:
        depth = graph.depth
        vertices: list[Vertex] = []
        chains: dict[Ref, list[Ref]] = {}  # value -> [itself, after one relay, after two, ...]
        longest = _longest_gaps(graph)
        taken = set(graph.vertices)
        for vertex in graph.vertices.values():
            operands = []
            for ref in vertex.operands:
                gap = _gap(graph, ref, vertex.name)
                operands.append(chains[ref][gap] if gap else ref)
            vertices.append(replace(vertex, operands=tuple(operands)))
            for output, spec in enumerate(vertex.outputs):
                ref = Ref(vertex.name, output)
                links = [ref]
                for k in range(1, longest.get(ref, 0) + 1):
                    name = f"{vertex.name}_{output}_relay{k}" if output else f"{vertex.name}_relay{k}"
                    while name in taken:  # output 1 of `split`, and the vertex `split_1`
                        name += "_"
                    taken.add(name)
                    vertices.append(
                        Vertex(
                            name,
                            Role.RELAY,
                            (spec,),
                            (links[-1],),
                            None,
                            False,
                            False,
                            vertex.module_path,
                            vertex.source,
                        )
                    )
                    links.append(Ref(name))
                chains[ref] = links
        assert all(d >= 0 for d in depth.values())
        return PCGraph(vertices, graph.outputs, graph.name)

    def ensures(self, graph: PCGraph) -> str | None:
        for vertex in graph.vertices.values():
            for ref in vertex.operands:
                if _gap(graph, ref, vertex.name):
                    return f"the edge {ref} -> %{vertex.name} spans {_gap(graph, ref, vertex.name) + 1} levels"
        return None


def _gap(graph: PCGraph, ref: Ref, child: str) -> int:
    """Levels that the edge skips; 0 where no error flows or the source does not move."""
    depth = graph.depth
    if ref.vertex not in depth or child not in depth or not graph.carries_error(ref):
        return 0
    if graph[ref.vertex].role is Role.PARAMETER:
        return 0
    return depth[ref.vertex] - depth[child] - 1


def _longest_gaps(graph: PCGraph) -> dict[Ref, int]:
    longest: dict[Ref, int] = {}
    for vertex in graph.vertices.values():
        for ref in vertex.operands:
            gap = _gap(graph, ref, vertex.name)
            if gap > longest.get(ref, 0):
                longest[ref] = gap
    return longest
