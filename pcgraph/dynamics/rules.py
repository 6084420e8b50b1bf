"""Learning rules: how the state of the network moves, and when a vertex's parameters learn.

A rule is a frozen description. It owns no loop, no trace and no stopping: `simulate` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, final

from ..errors import PCGraphError
from ..graph import PCGraph, Role
from ..schedule import Timing
from .network import Network


class Rule(ABC):
    """What a rule answers; every subclass is final and frozen.

    The loop of `simulate` asks, for t = 0 .. `horizon`: who `learns` now; then it lets the rule `step`
    the network to t + 1.
    """

    @abstractmethod
    def horizon(self, graph: PCGraph) -> int:
        """Number of inference steps T on the graph that is simulated."""

    @abstractmethod
    def timing(self, graph: PCGraph) -> Timing:
        """What scheduling needs to know: gamma, T, and when parameters update."""

    @abstractmethod
    def step(self, network: Network) -> None:
        """Move the network by one inference step, from the state (and `network.incoming`) of time t."""

    @abstractmethod
    def learns(self, depth: int, t: int, last: bool) -> bool:
        """Whether the parameter uses of a vertex at `depth` take their update at step t; `last` when t = T."""


@final
@dataclass(frozen=True)
class ZIL(Rule):
    """Zero-divergence inference learning: T = the largest depth, v learns at t = d_v (arXiv 2103.03725, section 3.3).

    Attributes:
        gamma: integration step. Exact at 1; otherwise the error that reaches v is gamma^{d_v} times
            backprop's (appendix F).
        update: ``"depth"`` is the rule. ``"end"`` is the ablation (appendix H): everything learns at T.
    """

    gamma: float = 1.0
    update: Literal["depth", "end"] = "depth"

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if self.update not in ("depth", "end"):
            raise PCGraphError(f"update={self.update!r} is not known", hint="use 'depth', or 'end' for the ablation")

    def horizon(self, graph: PCGraph) -> int:
        # One more than graph.steps if an input asks for its gradient: its error arrives behind the deepest vertex.
        return max((d for name, d in graph.depth.items() if graph[name].role is not Role.PARAMETER), default=0)

    def timing(self, graph: PCGraph) -> Timing:
        return Timing(self.gamma, graph.steps, self.update)

    def step(self, network: Network) -> None:
        _descend(network, self.gamma)

    def learns(self, depth: int, t: int, last: bool) -> bool:
        return last if self.update == "end" else t == depth


@final
@dataclass(frozen=True)
class IL(Rule):
    """Inference learning: `steps` steps of size `gamma` down the energy, then everything learns.

    Approximates backprop for small errors; theory section 5.
    """

    gamma: float = 0.1
    steps: int = 64

    def __post_init__(self) -> None:
        _check_gamma(self.gamma)
        if self.steps < 0:
            raise PCGraphError(f"steps={self.steps} is negative", hint="give the number of inference steps")

    def horizon(self, graph: PCGraph) -> int:
        return self.steps

    def timing(self, graph: PCGraph) -> Timing:
        return Timing(self.gamma, self.steps, "end")

    def step(self, network: Network) -> None:
        _descend(network, self.gamma)

    def learns(self, depth: int, t: int, last: bool) -> bool:
        return last


def _descend(network: Network, gamma: float) -> None:
    """``x_v += gamma * (-eps_v + sum_u J_u^T eps_c(u))``, all vertices at once: the energy's gradient (theory 1)."""
    network.move({ref: gamma * (network.incoming[ref] - network.eps[ref]) for ref in network.moving})


def _check_gamma(gamma: float) -> None:
    if not gamma > 0:
        raise PCGraphError(f"gamma={gamma} is not a step size", hint="use a number above 0; Z-IL is exact at 1")
