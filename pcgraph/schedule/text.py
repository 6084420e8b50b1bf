"""The stable text form of a schedule: what runs at each inference step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .schedule import Schedule


def render(schedule: Schedule) -> str:
    """Print a schedule, e.g.::

        schedule MLP: gamma=1 T=2 update=depth, 3 of 9 local updates run
          t=0  linear_1*
          t=1  relu
          t=2  linear*

    A ``*`` marks a vertex that updates its parameters (or delivers an input's gradient) at that step.
    """
    timing = schedule.timing
    run, total = schedule.work
    lines = [
        f"schedule {schedule.graph.name}: gamma={timing.gamma:g} T={timing.steps} update={timing.update}, "
        f"{run} of {total} local updates run"
    ]
    for step, names in schedule.by_step.items():
        marked = [name + "*" * (step in schedule.updates.get(name, ())) for name in names]
        lines.append(f"  t={step}  " + " ".join(marked))
    return "\n".join(lines)
