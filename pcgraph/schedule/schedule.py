"""Which vertex must run at which inference step: activity and liveness over the space-time program.

Node ``(v, t)`` of the space-time program is "update the error of v at step t". Two analyses:

* activity, forward in time: can ``eps_v(t)`` differ from zero? Errors enter at the outputs and spread one level
  a step;
* liveness, backward in time: does ``(v, t)`` reach a parameter update, or an error that was asked for?

What is active and live must run. Nothing here knows any rule: Z-IL's diagonal ``(v, d_v)`` and inference
learning's triangle ``t >= d_v`` both come out of the same two passes. Source: theory, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..graph import PCGraph, Role
from .steps import Steps
from .timing import Timed, Timing


@dataclass(frozen=True)
class Schedule:
    """The live part of the space-time program.

    Attributes:
        graph: what is scheduled; long edges act as delays (relays).
        timing: gamma, T and the update rule.
        active: steps at which a vertex's error can differ from zero.
        live: steps at which a vertex's error must be computed: active, and reaching an update.
        updates: steps at which a vertex updates its parameters.
    """

    graph: PCGraph
    timing: Timing
    active: Mapping[str, Steps]
    live: Mapping[str, Steps]
    updates: Mapping[str, Steps]

    @cached_property
    def order(self) -> tuple[tuple[str, int], ...]:
        """Live pairs in the order in which they run: reverse forward order of the vertices where a vertex runs once.

        Any order that respects the dependencies gives the same errors; this one also adds up the errors of a
        value's uses in autograd's order, so that sums are equal to the bit. With more than one step a vertex the
        steps run one after the other.
        """
        names = [name for name in reversed(self.graph.vertices) if self.live.get(name)]
        if all(len(self.live[name]) == 1 for name in names):
            return tuple((name, next(iter(self.live[name]))) for name in names)
        by_step = self.by_step
        return tuple((name, step) for step in sorted(by_step) for name in by_step[step])

    @cached_property
    def by_step(self) -> Mapping[int, tuple[str, ...]]:
        """Live vertices of every inference step, in reverse forward order."""
        table: dict[int, list[str]] = {}
        for name in reversed(self.graph.vertices):
            for step in self.live.get(name, Steps()):
                table.setdefault(step, []).append(name)
        return {step: tuple(names) for step, names in sorted(table.items())}

    @property
    def work(self) -> tuple[int, int]:
        """Local updates that run, and those that a full simulation would run."""
        predicting = [n for n in self.graph.depth if self.graph[n].role in (Role.OPERATION, Role.RELAY)]
        run = sum(len(self.live.get(name, Steps())) for name in predicting)
        return run, len(predicting) * (self.timing.steps + 1)

    def __str__(self) -> str:
        from .text import render

        return render(self)


def schedule(graph: PCGraph, rule: Timed, *, wanted: frozenset[str] = frozenset()) -> Schedule:
    """Derive the schedule of `rule` on `graph`.

    Args:
        graph: with or without explicit relays; edges that span several levels are treated as delays.
        rule: anything with a `timing`.
        wanted: vertices whose error is asked for at its update time, besides inputs that need a gradient.

    Linear in vertices and uses. Raises nothing of its own.
    """
    timing = rule.timing(graph)
    updates = _updates(graph, timing, wanted)
    active = _activity(graph, timing)
    reach = _liveness(graph, timing, updates)
    live = {name: active[name] & steps for name, steps in reach.items() if name in active}
    return Schedule(graph, timing, active, live, updates)


def _delay(graph: PCGraph, source: str, child: str) -> int:
    """Steps that an error takes from child to source: one, plus the relays between."""
    return graph.depth[source] - graph.depth[child]


def _updates(graph: PCGraph, timing: Timing, wanted: frozenset[str]) -> dict[str, Steps]:
    learning = {use.child for use in graph.parameter_uses if use.update_time is not None}
    learning |= {v.name for v in graph.role(Role.INPUT) if v.name in graph.depth}
    learning |= {name for name in wanted if name in graph.depth}
    result = {}
    for name in graph.vertices:
        if name in learning:
            if timing.update == "every":
                result[name] = Steps((0, timing.steps - 1))
            else:
                step = graph.depth[name] if timing.update == "depth" else timing.steps
                result[name] = Steps((step, step))
    return result


def _activity(graph: PCGraph, timing: Timing) -> dict[str, Steps]:
    """Forward in time: from the outputs' errors, one level a step, then for good."""
    horizon = max(timing.steps, graph.steps + 1)  # an input's error lies one level beyond the last prediction
    outputs = {ref.vertex for ref in graph.outputs if graph.carries_error(ref)}
    first: dict[str, int] = {}
    for name in reversed(graph.vertices):
        if name not in graph.depth or graph[name].role is Role.PARAMETER:
            continue
        arrivals = [graph.depth[name]] if name in outputs else []
        for use in graph.uses[name]:
            if use.child in first and graph.carries_error(use.source):
                arrivals.append(first[use.child] + _delay(graph, name, use.child))
        if arrivals:
            first[name] = min(arrivals)
    return {name: Steps((step, horizon)) for name, step in first.items()}


def _liveness(graph: PCGraph, timing: Timing, updates: Mapping[str, Steps]) -> dict[str, Steps]:
    """Backward in time: which errors an update, or a live error one level deeper, is made of."""
    live: dict[str, Steps] = {}
    for name, vertex in graph.vertices.items():  # parents first: their needs reach their children
        needs = [updates[name]] if name in updates else []
        for ref in vertex.operands:
            parent = ref.vertex
            if parent in live and name in graph.depth and graph.carries_error(ref):
                needs.append(live[parent].shift(-_delay(graph, parent, name)))
        if not needs or name not in graph.depth or vertex.role is Role.PARAMETER:
            continue
        reached = Steps.union(needs) & Steps((0, max(timing.steps, graph.steps + 1)))
        if timing.gamma != 1 and reached:  # the error is carried over, so all earlier steps count
            reached = Steps((0, max(reached)))
        if reached:
            live[name] = reached
    return live
