"""Which energy each value node of one network has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ..errors import PCGraphError
from ..graph import PCGraph, Ref
from ..graph.text import line
from .clamps import Holds
from .energy import Energy, Gaussian


def energies_of(
    graph: PCGraph, energies: Mapping[str, Energy], hidden: Sequence[Ref], holds: Holds
) -> dict[Ref, Energy]:
    """An energy for every hidden value.

    Args:
        graph: that is simulated.
        energies: by vertex name, or pattern of names (``"relu*"``) or of module paths (``"encoder.*"``); of several
            that match the last one counts.
        hidden: the values.
        holds: those that are clamped.

    Raises:
        PCGraphError: a name or pattern matches no hidden value, or an energy is for clamped values only.
    """
    result: dict[Ref, Energy] = dict.fromkeys(hidden, Gaussian())
    for pattern, energy in energies.items():
        found = [ref for ref in hidden if _matches(graph, ref, pattern)]
        if not found:
            raise PCGraphError(
                f"energies: {pattern!r} is no hidden value",
                hint="an output that follows the loss has the loss for energy",
            )
        result.update(dict.fromkeys(found, energy))
    for ref, energy in result.items():
        if energy.clamped_only and not holds.whole(ref):
            vertex = graph[ref.vertex]
            raise PCGraphError(
                f"{line(graph, vertex)}: {energy} has no lowest point in a value that moves",
                vertex=vertex.name,
                where=vertex.where(),
                hint=f"clamp={{{ref.vertex!r}: tensor}}, or use Gaussian() or a function of your own",
            )
    return result


def _matches(graph: PCGraph, ref: Ref, pattern: str) -> bool:
    path = graph[ref.vertex].module_path
    return fnmatchcase(ref.vertex, pattern) or (bool(path) and fnmatchcase(path, pattern))
