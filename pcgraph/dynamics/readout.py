"""The graph that is simulated: the loss reads each output through a vertex of its own, and edges are levelled."""

from __future__ import annotations

from ..graph import PCGraph, Ref, Role, Vertex


def simulated(graph: PCGraph, levelled: bool) -> PCGraph:
    """Add readouts, then level (or not: the ablation)."""
    graph = with_readouts(graph)
    return graph.levelled() if levelled else graph


def with_readouts(graph: PCGraph) -> PCGraph:
    """Put an identity vertex between the loss and every output that is a parameter or that other vertices read as well.

    The loss is one more reader of an output. Its edge to an output of depth d spans d + 1 levels; with the readout
    in place levelling sees that edge, and the loss's part of the error arrives at time d, together with the rest.
    That the relays hold it meanwhile keeps it the derivative at the forward pass, even where the loss mixes
    outputs of different depths.
    """
    vertices = list(graph.vertices.values())
    readouts: dict[Ref, Ref] = {}
    for ref in dict.fromkeys(graph.outputs):
        vertex = graph[ref.vertex]
        if not graph.carries_error(ref) or not (graph.depth[ref.vertex] or vertex.role is Role.PARAMETER):
            continue
        name = f"{ref.vertex}_{ref.output}_readout" if ref.output else f"{ref.vertex}_readout"
        while name in graph.vertices:
            name += "_"
        vertices.append(Vertex(name, Role.RELAY, (graph.spec(ref),), (ref,)))
        readouts[ref] = Ref(name)
    return PCGraph(vertices, (readouts.get(ref, ref) for ref in graph.outputs), graph.name)
