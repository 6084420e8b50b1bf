"""Zero-divergence inference learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, final

from ...errors import PCGraphError
from ...graph import PCGraph, Role
from ...schedule import Timing
from ..descent import check_gamma, velocity
from ..network import Network
from ..rule import Rule


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
        check_gamma(self.gamma)
        if self.update not in ("depth", "end"):
            raise PCGraphError(f"update={self.update!r} is not known", hint="use 'depth', or 'end' for the ablation")

    def horizon(self, graph: PCGraph) -> int:
        # One more than graph.steps if an input asks for its gradient: its error arrives behind the deepest vertex.
        return max((d for name, d in graph.depth.items() if graph[name].role is not Role.PARAMETER), default=0)

    def timing(self, graph: PCGraph) -> Timing:
        return Timing(self.gamma, graph.steps, self.update)

    def step(self, network: Network, state: Any) -> None:
        network.move(velocity(network.forces(), self.gamma))

    def learns(self, depth: int, t: int, last: bool) -> bool:
        return last if self.update == "end" else t == depth
