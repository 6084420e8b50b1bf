"""Liveness of inference learning, where values move: how long before the end an error or a value still matters.

The liveness of `schedule` follows errors alone, which is all there is while values stay at the forward pass. Under
inference learning a value moves by its error, its children predict from it, and the children's errors are what
parameters learn from. Counted backward from the last step T, so that the answer is the same for every T.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..graph import PCGraph, Role

NEVER = 1 << 30


@dataclass(frozen=True)
class Lags:
    """Per vertex, how many steps before T its error, and its value, matter for the last time; `NEVER` if at no time.

    Attributes:
        errors: ``eps_v(t)`` is needed for ``t <= T - errors[v]``; the prediction with it.
        values: ``x_v(t)`` is needed for ``t <= T - values[v]``.
        pulls: ``J^T eps_v(t)`` is needed for ``t <= T - pulls[v]``.
    """

    errors: Mapping[str, int]
    values: Mapping[str, int]
    pulls: Mapping[str, int]


def lags(graph: PCGraph, wanted: Collection[str] = ()) -> Lags:
    """Derive the lags of inference learning.

    Args:
        graph: levelled.
        wanted: vertices whose value and error are asked for at T.

    Linear in vertices and uses, times the longest lag.
    """
    depth = graph.depth
    moving = [n for n in depth if graph[n].role is not Role.PARAMETER]
    parents = {n: _moving(graph, n) for n in moving}
    children: dict[str, list[str]] = {n: [] for n in moving}
    for name, sources in parents.items():
        for source in sources:
            children[source].append(name)
    learns = {use.child for use in graph.parameter_uses if use.child in depth}
    learns |= {n for n in moving if graph[n].role is Role.INPUT}
    errors = {n: 0 if n in learns or n in wanted else NEVER for n in moving}
    values = {n: 0 if n in wanted else NEVER for n in moving}
    todo = set(moving)
    while todo:  # lags only ever shrink, by at least one
        name = todo.pop()
        value = min([values[name], errors[name], *(errors[c] for c in children[name])])
        error = min([errors[name], value + 1, *(values[p] + 1 for p in parents[name])])
        if value < values[name] or error < errors[name]:
            values[name], errors[name] = value, error
            todo.update((name, *children[name], *parents[name]))
    pulls = {n: min((values[p] + 1 for p in parents[n]), default=NEVER) for n in moving}
    return Lags(errors, values, pulls)


def _moving(graph: PCGraph, name: str) -> list[str]:
    """Parents whose error node hears of this vertex."""
    found = {ref.vertex for ref in graph[name].operands if graph.carries_error(ref) and ref.vertex in graph.depth}
    return [parent for parent in found if graph[parent].role is not Role.PARAMETER]
