"""Inference learning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from ..descent import Descending, Descent
from ..network import Network


@final
@dataclass(frozen=True)
class IL(Descent):
    """Inference learning: values move down the energy for `steps` steps of size `gamma`, then everything learns.

    Approximates backprop for small errors (theory section 5; Whittington and Bogacz 2017). See `Descent` for the
    attributes. ``IL(gamma, steps)`` alone is compiled by `pcn.learn`.
    """

    def step(self, network: Network, state: Descending) -> None:
        network.move(self.velocity(network, state))
