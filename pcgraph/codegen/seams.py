"""Seams: values that the caller can look at and that the network goes on with; they cut the network into segments.

A returned hidden state is one. Autograd knows such a value as a tensor of its own: hooks on it, ``retain_grad()`` and
``torch.autograd.grad`` with respect to it all see its *complete* error, from outside and from inside. So the network
hands each use's error of a seam to the engine separately, which adds them in the order it always does, and goes on
behind the seam with the sum. Between two seams no engine runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..graph import PCGraph, Ref, Role

_LEAVES = (Role.INPUT, Role.PARAMETER, Role.STATE)


class Edge(NamedTuple):
    """One use of a seam (or of a returned input): the engine receives its error by itself."""

    source: Ref
    child: str
    operand: int  # among the child's different operands


@dataclass(frozen=True)
class Seams:
    """How a network is cut.

    Attributes:
        split: values whose uses hand their errors to the engine one by one: seams, and inputs or parameters that the
            network returns as they are.
        segments: operations in forward order, cut behind every seam; segment 0 is the one next to the inputs.
    """

    split: frozenset[Ref]
    segments: tuple[tuple[str, ...], ...]

    @staticmethod
    def of(graph: PCGraph, split: Iterable[Ref]) -> Seams:
        """Cut the network at these values."""
        split = frozenset(split)
        cuts = {ref.vertex for ref in split if graph[ref.vertex].role not in _LEAVES}
        segments: list[list[str]] = [[]]
        for name, vertex in graph.vertices.items():
            if vertex.role not in _LEAVES:
                segments[-1].append(name)
                if name in cuts:
                    segments.append([])
        return Seams(split, tuple(map(tuple, segments)))


def candidates(graph: PCGraph) -> frozenset[Ref]:
    """Outputs that carry an error and receive one from inside as well."""
    return frozenset(
        ref
        for ref in graph.outputs
        if graph.carries_error(ref)
        and graph[ref.vertex].role is not Role.STATE
        and any(use.source == ref and use.child in graph.depth for use in graph.uses[ref.vertex])
    )
