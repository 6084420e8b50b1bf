"""Predictive coding under the fixed prediction assumption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ...errors import PCGraphError
from ..descent import Descending, Descent
from ..network import Network
from ..trace import Trace


@final
@dataclass(frozen=True)
class FixedPrediction(Descent):
    """Errors move; predictions and Jacobians stay those of the forward pass. Everything learns at T.

    The fixed point is backprop. At ``gamma=1`` it is reached after as many steps as the graph is deep, on levelled
    and other graphs. See `Descent` for the attributes. Source: Millidge, Tschantz, Buckley 2020, arXiv 2006.04182.
    """

    def init(self, network: Network) -> Descending:
        if network.holds.free_inputs:
            raise PCGraphError(
                "inputs that move have no effect on fixed predictions", hint="use IL(...), or clamp them"
            )
        network.frozen = True
        return super().init(network)

    def ended(self, trace: Trace) -> None:
        """Errors grow to backprop's, and their energy with them."""

    def step(self, network: Network, state: Descending) -> None:
        network.move(self.velocity(network, state))
