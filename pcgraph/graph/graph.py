"""`PCGraph`: vertices with value and error nodes, uses keyed by operand, depths and update times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from . import check, depth, text
from .vertex import ParameterUse, Ref, Role, TensorSpec, Use, Vertex

if TYPE_CHECKING:
    import networkx


class PCGraph:
    """An immutable, topologically ordered predictive coding graph.

    Args:
        vertices: in forward order; each reads only earlier ones.
        outputs: the tensors that the network returns, in order.
        name: for titles.

    Raises:
        GraphError: an invariant does not hold (see `pcgraph.graph.check`).

    Source: value and error nodes, arXiv 2103.03725; levelled graphs, Salvatori et al., AAAI 2022.
    """

    def __init__(self, vertices: Iterable[Vertex], outputs: Iterable[Ref], name: str = "model") -> None:
        self.name = name
        table: dict[str, Vertex] = {}
        for vertex in vertices:
            if vertex.name in table:
                from ..errors import GraphError

                raise GraphError(f"two vertices are called {vertex.name!r}")
            table[vertex.name] = vertex
        self.vertices: MappingProxyType[str, Vertex] = MappingProxyType(table)
        self.outputs: tuple[Ref, ...] = tuple(outputs)
        self.verify()

    def verify(self) -> None:
        """Raise `GraphError` unless every invariant holds."""
        check.check(self)

    # -- looking up ------------------------------------------------------------------------
    def __getitem__(self, name: str) -> Vertex:
        return self.vertices[name]

    def __len__(self) -> int:
        return len(self.vertices)

    def spec(self, ref: Ref) -> TensorSpec:
        """Spec of the tensor that `ref` points at."""
        spec = self.vertices[ref.vertex].outputs[ref.output]
        assert spec is not None
        return spec

    def carries_error(self, ref: Ref) -> bool:
        """Whether an error can flow back through this value."""
        spec = self.vertices[ref.vertex].outputs[ref.output]
        return spec is not None and spec.requires_grad

    def role(self, role: Role) -> tuple[Vertex, ...]:
        """All vertices of one role, in forward order."""
        return tuple(v for v in self.vertices.values() if v.role is role)

    @cached_property
    def uses(self) -> Mapping[str, tuple[Use, ...]]:
        """Uses of every vertex's values, by vertex name, in forward order of the children."""
        table: dict[str, list[Use]] = {name: [] for name in self.vertices}
        for vertex in self.vertices.values():
            for operand, ref in enumerate(vertex.operands):
                table[ref.vertex].append(Use(ref, vertex.name, operand))
        return MappingProxyType({name: tuple(uses) for name, uses in table.items()})

    # -- depth and time --------------------------------------------------------------------
    @cached_property
    def depth(self) -> Mapping[str, int]:
        """Depth of every vertex that an output's error can reach; output = 0."""
        return MappingProxyType(depth.depths(self))

    @cached_property
    def steps(self) -> int:
        """Inference steps T that Z-IL needs: the largest depth of a vertex that predicts."""
        leaves = (Role.INPUT, Role.PARAMETER, Role.STATE)
        return max((d for n, d in self.depth.items() if self.vertices[n].role not in leaves), default=0)

    @cached_property
    def parameter_uses(self) -> tuple[ParameterUse, ...]:
        """Every use of a parameter with its update time; None where no error arrives."""
        return tuple(
            ParameterUse(ref.vertex, vertex.name, operand, self.depth.get(vertex.name))
            for vertex in self.vertices.values()
            for operand, ref in enumerate(vertex.operands)
            if self.vertices[ref.vertex].role is Role.PARAMETER
        )

    def relays(self, name: str) -> int:
        """Identity vertices that levelling puts behind a vertex: per value one chain, as long as its longest edge."""
        here = self.depth.get(name)
        vertex = self.vertices[name]
        if here is None or vertex.role in (Role.PARAMETER, Role.STATE):
            return 0
        longest: dict[int, int] = {}
        for use in self.uses[name]:
            if use.child in self.depth and self.carries_error(use.source):
                gap = here - self.depth[use.child] - 1
                longest[use.source.output] = max(gap, longest.get(use.source.output, 0))
        return sum(longest.values())

    def levelled(self) -> PCGraph:
        """The graph with explicit identity vertices, so that every edge spans exactly one level."""
        from ..passes.level import Level

        return Level()(self)

    # -- forms -----------------------------------------------------------------------------
    def __str__(self) -> str:
        return text.render(self)

    def __repr__(self) -> str:
        return f"PCGraph({self.name!r}, {len(self.role(Role.OPERATION))} operations, T={self.steps})"

    def to_networkx(self) -> networkx.MultiDiGraph:
        """A `networkx.MultiDiGraph`: one node per vertex, one edge per use, keyed by operand index."""
        from .export import to_networkx

        return to_networkx(self)

    def summary(self) -> dict[str, Any]:
        """Counts for people and JSON."""
        operations = self.role(Role.OPERATION)
        levels = [self.depth[v.name] for v in operations if v.name in self.depth]
        return {
            "vertices": len(operations),
            "levels": len(set(levels)),
            "steps": self.steps,
            "relays": sum(self.relays(v.name) for v in self.vertices.values()),
            "parameters": len(self.role(Role.PARAMETER)),
            "parameter_uses": len(self.parameter_uses),
            "opaque": sum(v.operation is not None and v.operation.opaque is not None for v in operations),
            "non_differentiable": sum(not v.differentiable for v in operations),
        }
