"""Inference learning in continuous time, by a solver of differential equations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from ...errors import PCGraphError
from ...graph import PCGraph, Ref
from ...schedule import Timing
from ..descent import check_gamma, check_steps
from ..network import Network, Snapshot
from ..rule import Rule


@final
@dataclass(frozen=True)
class Flow(Rule):
    """Values follow ``dx/dt = -dF/dx`` for ``gamma * steps`` units of time; then everything learns.

    What `IL` is with smaller and smaller steps. The solver is torchdiffeq's: ``pip install pcgraph[ode]``.

    Attributes:
        gamma: time between two steps of the trace.
        steps: how many of them.
        method: of torchdiffeq: ``"dopri5"``, ``"rk4"``, ...
        rtol, atol: what the adaptive methods keep the error of a step below.
    """

    gamma: float = 0.1
    steps: int = 64
    method: str = "dopri5"
    rtol: float = 1e-6
    atol: float = 1e-8

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        check_steps(self.steps)

    def horizon(self, graph: PCGraph) -> int:
        return self.steps

    def timing(self, graph: PCGraph) -> Timing:
        return Timing(self.gamma, self.steps, "end")

    def init(self, network: Network) -> Any:
        try:
            import torchdiffeq
        except ImportError:
            raise PCGraphError("Flow needs torchdiffeq", hint="pip install pcgraph[ode]") from None
        return torchdiffeq.odeint

    def step(self, network: Network, state: Any) -> None:
        if not network.moving:  # all vertices but the outputs are frozen
            network.move({})
            return
        here = network.snapshot()
        moved = state(
            lambda _, way: self._force(network, here, way),
            torch.zeros_like(_flat({ref: network.x[ref] for ref in network.moving})),
            torch.tensor([0.0, self.gamma], dtype=torch.float64),
            method=self.method,
            rtol=self.rtol,
            atol=self.atol,
        )[-1]
        network.restore(here)
        network.move(_shaped(network, moved))

    def learns(self, depth: int, t: int, last: bool) -> bool:
        return last

    def _force(self, network: Network, here: Snapshot, way: Tensor) -> Tensor:
        """The force at a trial state, `way` from where the step begins."""
        network.restore(here)
        network.move(_shaped(network, way))
        network.collect(())
        return _flat(network.forces())


def _flat(nodes: Mapping[Ref, Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in nodes.values()])


def _shaped(network: Network, flat: Tensor) -> dict[Ref, Tensor]:
    sizes = [network.x[ref].numel() for ref in network.moving]
    parts = zip(network.moving, flat.split(sizes), strict=True)
    return {ref: part.reshape(network.x[ref].shape).to(network.x[ref].dtype) for ref, part in parts}
