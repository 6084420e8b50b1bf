"""Error optimisation: inference in the coordinates of the errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..descent import Descending, Descent
from ..network import Network


@final
@dataclass(frozen=True)
class ErrorPC(Descent):
    """The errors are the state, ``x = f(parents) + eps``, and descend the energy. Everything learns at T.

    A change of one error moves all values above it at once, and every vertex passes on what it receives; so a signal
    crosses the whole network in one step and deep networks come to rest much sooner than under `IL`, at the same
    equilibria. Each step costs a prediction and a wave of local pulls. Parameters learn from the error of their own
    vertex. See `Descent` for the attributes. Source: Goemaere et al. 2025, arXiv 2505.20137.
    """

    def init(self, network: Network) -> Descending:
        network.onward = True
        return super().init(network)

    def step(self, network: Network, state: Descending) -> None:
        network.shift(self.velocity(network, state))
