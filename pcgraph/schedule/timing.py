"""The timing of a rule: all that scheduling needs to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ..graph import PCGraph


@dataclass(frozen=True)
class Timing:
    """When a rule moves values and when it updates parameters.

    Attributes:
        gamma: integration step of inference. At exactly 1 an error is replaced, not carried over.
        steps: last inference step T.
        update: ``"depth"``: a vertex learns at t = depth, and only then (Z-IL); ``"end"``: all learn at T (IL);
            ``"every"``: all learn at every t < T (incremental).
    """

    gamma: float
    steps: int
    update: Literal["depth", "end", "every"]


@runtime_checkable
class Timed(Protocol):
    """Anything that can tell its timing on a graph: every rule of `pcgraph.dynamics`."""

    def timing(self, graph: PCGraph) -> Timing:
        """Timing on this graph (T often depends on the graph's depth)."""
        ...
