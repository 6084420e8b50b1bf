"""The stable text form of a graph: no ids, no addresses, one line a vertex."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .vertex import Operation, Role, Slot, Vertex

if TYPE_CHECKING:
    from .graph import PCGraph


def render(graph: PCGraph) -> str:
    """Print a graph, e.g.::

        graph MLP: T=2
          %x = input : f32[4,3]
          %fc_weight = parameter fc.weight : f32[2,3]*
          %linear = linear(%x, %fc_weight) : f32[4,2]*  d=1 @fc
          return %linear

    A ``*`` behind a shape marks a value with an error node, ``d`` is depth and update time.
    """
    lines = [f"graph {graph.name}: T={graph.steps}"]
    lines += [f"  {line(graph, vertex)}" for vertex in graph.vertices.values()]
    lines.append("  return " + ", ".join(str(ref) for ref in graph.outputs))
    return "\n".join(lines)


def line(graph: PCGraph, vertex: Vertex) -> str:
    """One vertex as one line."""
    specs = ", ".join("-" if s is None else f"{s}{'*' if s.requires_grad else ''}" for s in vertex.outputs)
    if vertex.role in (Role.INPUT, Role.RELAY, Role.OPERATION):
        what = vertex.op
    else:
        what = f"{vertex.role.value} {vertex.module_path}"
    if vertex.operation is not None:
        what = _formula(vertex.operation, vertex)
    elif vertex.operands:
        what += f"({vertex.operands[0]})"
    depth = graph.depth.get(vertex.name)
    tail = [] if depth is None else [f"d={depth}"]
    if vertex.role is Role.OPERATION and vertex.module_path:
        tail.append(f"@{vertex.module_path}")
    if vertex.operation is not None and vertex.operation.opaque:
        tail.append(f"opaque: {vertex.operation.opaque}")
    return f"%{vertex.name} = {what} : {specs}" + ("  " + " ".join(tail) if tail else "")


def _formula(operation: Operation, vertex: Vertex) -> str:
    args = [_show(item, vertex) for item in operation.args]
    args += [f"{name}={_show(value, vertex)}" for name, value in operation.kwargs]
    return f"{operation.name}({', '.join(args)})"


def _show(item: object, vertex: Vertex) -> str:
    if isinstance(item, Slot):
        return str(vertex.operands[item.index])
    if isinstance(item, Operation):
        return _formula(item, vertex)
    if isinstance(item, tuple | list):
        return "[" + ", ".join(_show(i, vertex) for i in item) + "]"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{k}: {_show(v, vertex)}" for k, v in item.items()) + "}"
    if isinstance(item, slice):
        parts = (item.start, item.stop, item.step)
        return ":".join("" if p is None else _show(p, vertex) for p in parts[: 2 if item.step is None else 3])
    if item is None or isinstance(item, bool | int | float | str | complex):
        return repr(item)
    if item is Ellipsis:
        return "..."
    text = str(item)
    return text if " at 0x" not in text else f"<{type(item).__name__}>"
