"""The invariants of a `PCGraph`, checked before and after every pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import GraphError
from .vertex import Operation, Ref, Role, Slot

if TYPE_CHECKING:
    from .graph import PCGraph

_LEAVES = (Role.INPUT, Role.PARAMETER, Role.STATE)


def check(graph: PCGraph) -> None:
    """Raise `GraphError` unless the graph is a well-formed, topologically ordered DAG.

    * every operand and output points at an existing tensor output of an *earlier* vertex (so no cycles);
    * inputs, parameters and state have no operands and one output; operations have an `Operation`
      whose slots are exactly its operands; relays copy exactly one differentiable value;
    * a parameter carries a gradient; a vertex is differentiable only if an operand is.
    """
    seen: set[str] = set()
    slots_by_id: dict[int, set[int]] = {}  # long networks have few operations

    def resolve(ref: Ref, user: str) -> None:
        if ref.vertex not in seen:
            raise GraphError(
                f"{user} reads {ref}, which " + ("comes later" if ref.vertex in graph.vertices else "does not exist"),
                hint="vertices must be listed after everything they read; a cycle has no such order",
            )
        outputs = graph.vertices[ref.vertex].outputs
        if not 0 <= ref.output < len(outputs) or outputs[ref.output] is None:
            raise GraphError(f"{user} reads {ref}, but %{ref.vertex} has no such tensor output")

    for name, vertex in graph.vertices.items():
        line = f"%{name} = {vertex.operation.name if vertex.operation else vertex.role.value}"
        if name != vertex.name:
            raise GraphError(f"vertex {vertex.name!r} is filed under {name!r}")
        for ref in vertex.operands:
            resolve(ref, line)
        if vertex.role in _LEAVES:
            if vertex.operands or vertex.operation or len(vertex.outputs) != 1:
                raise GraphError(f"{line}: a leaf has no operands, no operation and one output", vertex=line)
            if vertex.role is Role.PARAMETER and not vertex.differentiable:
                raise GraphError(f"{line}: a parameter needs a gradient; a frozen one is state", vertex=line)
        elif vertex.role is Role.RELAY:
            if len(vertex.operands) != 1 or len(vertex.outputs) != 1 or not graph.carries_error(vertex.operands[0]):
                raise GraphError(f"{line}: a relay copies exactly one differentiable value", vertex=line)
        else:
            if vertex.operation is None:
                raise GraphError(f"{line}: an operation vertex needs an operation", vertex=line)
            slots = slots_by_id.get(id(vertex.operation))
            if slots is None:
                slots = slots_by_id[id(vertex.operation)] = slots_of(vertex.operation)
            if slots != set(range(len(vertex.operands))):
                raise GraphError(
                    f"{line}: slots and operands differ", vertex=line, where=vertex.where(), hint="one slot per operand"
                )
            if vertex.differentiable and not any(graph.carries_error(ref) for ref in vertex.operands):
                raise GraphError(f"{line}: carries an error but none of its operands does", vertex=line)
        seen.add(name)
    for ref in graph.outputs:
        resolve(ref, "the graph's output")


def slots_of(operation: Operation) -> set[int]:
    """Operand indices that an operation's argument template refers to."""
    return {item.index for part in operation.parts for item in part.items if isinstance(item, Slot)}
