"""Incremental predictive coding: values and parameters move together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

from ...errors import PCGraphError
from ...graph import PCGraph, Ref, Role
from ...schedule import Timing
from ..descent import Descending, Descent
from ..network import Network


@final
@dataclass(frozen=True)
class IncrementalPC(Descent):
    """Values and parameters take a step at every inference step, from the same state (online learning).

    See `Descent` for the other attributes. Source: Salvatori et al. 2022, arXiv 2212.00720.

    Attributes:
        rate: parameters move by ``-rate * gradient`` at every step. None: by the optimizer that `pcn.learn` is given.
    """

    online: ClassVar[bool] = True
    rate: float | None = field(default=None, kw_only=True)

    def timing(self, graph: PCGraph) -> Timing:
        return Timing(self.gamma, self.steps, "every")

    def init(self, network: Network) -> Descending:
        if (self.rate is None) == (network.update is None):
            raise PCGraphError(
                "this rule changes parameters during inference, and needs one rate to do so",
                hint="IncrementalPC(..., rate=0.01), or pcn.learn(..., rule, optimizer), not both",
            )
        return super().init(network)

    def step(self, network: Network, state: Descending) -> None:
        moves = self.velocity(network, state)
        received = {v: network.incoming.get(Ref(v.name)) for v in network.graph.role(Role.PARAMETER)}
        gradients = {vertex: -tensor for vertex, tensor in received.items() if tensor is not None}
        if self.rate is None:
            assert network.update is not None
            network.update({vertex.name: gradient for vertex, gradient in gradients.items()})
        else:
            for vertex, gradient in gradients.items():
                ref = Ref(vertex.name)
                network.x[ref] = network.x[ref] - self.rate * gradient
        network.move(moves)

    def learns(self, depth: int, t: int, last: bool) -> bool:
        return not last
