"""Where in a file a graph lies: names are unique in a graph, and two branches may each have a weight of one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import onnx_ir as ir

# The nodes, told by their first outputs, and the attributes inside of which a graph lies: () is the file's own.
Within: TypeAlias = tuple[tuple[str, str, int], ...]
_KEY = "pcgraph.within"


def mark(graph: ir.Graph, path: Within = ()) -> None:
    """Note on every node, weight and constant of the file where it lies, before anything is moved or inlined."""
    import onnx_ir as ir

    for value in graph.initializers.values():
        value.meta[_KEY] = path
    for node in graph:
        node.meta[_KEY] = path
        for out in node.outputs:
            out.meta[_KEY] = path
        first = (node.outputs[0].name or "") if node.outputs else ""
        for name, attribute in node.attributes.items():
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                mark(attribute.as_graph(), (*path, (first, name, 0)))
            elif attribute.type is ir.AttributeType.GRAPHS and not attribute.is_ref():
                for k, inner in enumerate(attribute.as_graphs()):
                    mark(inner, (*path, (first, name, k)))


def within(place: ir.Node | ir.Value) -> Within | None:
    """Where a node or a value lies in the file; None for what comes from a function."""
    found: Within | None = place.meta.get(_KEY)
    return found


def is_held(value: ir.Value) -> bool:
    """Whether an output of a graph reads a value, or several graphs do."""
    return value.is_graph_output() or len({use.node.graph for use in value.uses()}) > 1
