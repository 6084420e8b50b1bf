"""Descending the energy: what inference learning and its relatives share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ..errors import PCGraphError
from ..graph import PCGraph, Ref
from ..schedule import Timing
from .network import Network
from .rule import Rule
from .trace import Trace, label

RISE = 1e-3  # of the energy that rounding may add
Optimizers = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Descent(Rule):
    """Steps down the energy until T or, with a tolerance, until every value node has come to rest.

    Attributes:
        gamma: integration step.
        steps: T; with a tolerance the largest T.
        tolerance: a vertex is at rest when no element of it moves by more than ``tolerance * max(1, max|x_v|)`` in a
            step. Inference is done when all are, and the errors have had time to reach the deepest vertex.
        optimizer: of the values, in place of ``gamma`` times the force: list of tensors -> one of torch's, such as
            ``functools.partial(torch.optim.Adam, lr=0.1)``.
    """

    gamma: float = 0.1
    steps: int = 64
    tolerance: float | None = None
    optimizer: Optimizers | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        check_steps(self.steps)
        if self.tolerance is not None and not self.tolerance > 0:
            raise PCGraphError(
                f"tolerance={self.tolerance} is not positive", hint="use a small number above 0, or None"
            )

    @property
    def plain(self) -> bool:
        """Whether every step is the same gamma times the force, T times."""
        return self.tolerance is None and self.optimizer is None

    def horizon(self, graph: PCGraph) -> int:
        return self.steps

    def timing(self, graph: PCGraph) -> Timing:
        return Timing(self.gamma, self.steps, "end")

    def init(self, network: Network) -> Descending:
        return Descending(None if self.optimizer is None else _Values(self.optimizer, network))

    def done(self, network: Network, state: Descending) -> bool:
        if self.tolerance is not None and self._at_rest(network, state, self.tolerance):
            return True
        return network.t >= self.steps

    def learns(self, depth: int, t: int, last: bool) -> bool:
        return last

    def ended(self, trace: Trace) -> None:
        """Warn if the energy went up: steps that are too large, after which gradients are chance."""
        first, last = trace.energies[0], trace.energies[-1]
        if not last <= first + RISE * abs(first):
            warnings.warn(
                f"inference does not come to rest: in {trace.steps} steps of {type(self).__name__} with gamma="
                f"{self.gamma} the energy went from {first:.4g} to {last:.4g}. Use a smaller gamma",
                stacklevel=5,
            )

    def velocity(self, network: Network, state: Descending) -> dict[Ref, Tensor]:
        """The step of every moving node."""
        forces = network.forces()
        state.velocity = velocity(forces, self.gamma) if state.values is None else state.values.step(forces)
        return state.velocity

    def _at_rest(self, network: Network, state: Descending, tolerance: float) -> bool:
        for ref, change in state.velocity.items():
            size = max(1.0, _largest(network.x[ref]))
            if _largest(change) <= tolerance * size:
                state.rest.setdefault(label(ref), network.t)
            else:  # moved again, or NaN
                state.rest.pop(label(ref), None)
        return network.t > network.graph.steps and len(state.rest) == len(network.moving)


@dataclass(eq=False)
class Descending:
    """What is remembered from step to step.

    Attributes:
        values: the optimizer of the values, if there is one.
        velocity: of the last step.
        rest: value node -> time since when it has been at rest, by the rule's tolerance.
    """

    values: _Values | None
    velocity: Mapping[Ref, Tensor] = field(default_factory=dict)
    rest: dict[str, int] = field(default_factory=dict)


class _Values:
    """One of torch's optimizers, asked what it would do with the values.

    It is given tensors of zeros in their place, which have its step when it has taken it: as it is what the errors
    move by, it must not be rounded to the values' digits.
    """

    def __init__(self, make: Optimizers, network: Network) -> None:
        self._steps = {ref: torch.zeros_like(network.x[ref]).requires_grad_() for ref in network.moving}
        self._optimizer = make(list(self._steps.values()))
        if not isinstance(self._optimizer, torch.optim.Optimizer):
            raise PCGraphError(
                f"optimizer made {type(self._optimizer).__name__}, no optimizer",
                hint="pass functools.partial(torch.optim.Adam, lr=0.1) or the like",
            )
        if any([group.get("weight_decay") for group in self._optimizer.param_groups]):
            raise PCGraphError("weight decay of value nodes", hint="leave it out; an energy can pull values to 0")

    def step(self, forces: Mapping[Ref, Tensor]) -> dict[Ref, Tensor]:
        for ref, tensor in self._steps.items():
            tensor.grad = -forces[ref]
        with torch.no_grad():
            for tensor in self._steps.values():
                tensor.zero_()
        self._optimizer.step()
        return {ref: tensor.detach().clone() for ref, tensor in self._steps.items()}


def velocity(forces: Mapping[Ref, Tensor], gamma: float) -> dict[Ref, Tensor]:
    """``dx_v = gamma * (-eps_v + sum_u J_u^T eps_c(u))``, all vertices at once: the energy's gradient (theory 1)."""
    return {ref: gamma * force for ref, force in forces.items()}


def check_gamma(gamma: Any) -> None:
    """Raise if gamma is no step size."""
    if isinstance(gamma, bool) or not isinstance(gamma, Real) or not float(gamma) > 0:
        raise PCGraphError(f"gamma={gamma!r} is not a step size", hint="use a number above 0; Z-IL is exact at 1")


def check_steps(steps: Any) -> None:
    """Raise if this is no number of steps."""
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 0:
        raise PCGraphError(
            f"steps={steps!r} is not a number of steps", hint="give a whole number, 0 or more, of inference steps"
        )


def _largest(tensor: Tensor) -> float:
    return tensor.abs().max().item() if tensor.numel() else 0.0
