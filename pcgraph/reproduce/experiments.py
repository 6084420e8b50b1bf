"""All experiments, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import PCGraphError
from . import agents, divergence, relatives, timing, training
from .cell import Experiment

ALL: tuple[Experiment, ...] = (
    divergence.EXPERIMENT,
    timing.EXPERIMENT,
    training.EXPERIMENT,
    agents.EXPERIMENT,
    timing.MORE,
    relatives.EXPERIMENT,
    relatives.DEEPER,
)


def named(names: Sequence[str]) -> tuple[Experiment, ...]:
    """Those of these names; all if there are none.

    Raises:
        PCGraphError: there is no experiment of a name.
    """
    known = {experiment.name: experiment for experiment in ALL}
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise PCGraphError(f"no experiment {', '.join(unknown)}", hint=f"choose from {', '.join(known)}")
    return tuple(known[name] for name in known if name in names) or ALL
