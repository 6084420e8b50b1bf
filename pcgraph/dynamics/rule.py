"""What a learning rule is: how the state of the network moves, and when a vertex's parameters learn.

A rule is a frozen description. It owns no loop and no trace: `simulate` does. What it must remember from step to step
(an optimizer's momentum) it makes in `init`, and is handed back at every step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import PCGraphError
from ..graph import PCGraph
from ..schedule import Timing
from .network import Network

if TYPE_CHECKING:
    from .trace import Trace


class Rule(ABC):
    """What a rule answers; every subclass is frozen.

    The loop, for t = 0, 1, ...: is inference `done`; who `learns` now; if it is not done, `step` to t + 1.

    Attributes:
        online: parameters change during inference, and not only after it.
    """

    online: ClassVar[bool] = False

    @abstractmethod
    def horizon(self, graph: PCGraph) -> int:
        """Number of inference steps T on the graph that is simulated, at most."""

    @abstractmethod
    def timing(self, graph: PCGraph) -> Timing:
        """What scheduling needs to know: gamma, T, and when parameters update."""

    def init(self, network: Network) -> Any:
        """Look at the network of time 0, and make what has to be remembered."""
        return None

    @abstractmethod
    def step(self, network: Network, state: Any) -> None:
        """Move the network by one inference step, from the state (and `network.incoming`) of time t."""

    def done(self, network: Network, state: Any) -> bool:
        """Whether the network's time is the last one."""
        return network.t >= self.horizon(network.graph)

    def ended(self, trace: Trace) -> None:  # noqa: B027 - most rules have nothing to say
        """Look at the whole trace: a rule that has not done what it should warns."""

    @abstractmethod
    def learns(self, depth: int, t: int, last: bool) -> bool:
        """Whether the parameter uses of a vertex at `depth` take their update at step t; `last` when it is done."""


def check_rule(rule: object) -> None:
    """Raise if something is no rule."""
    if not isinstance(rule, Rule):
        what = repr(rule) if isinstance(rule, str) or rule is None else getattr(rule, "__name__", type(rule).__name__)
        raise PCGraphError(f"not a rule: {what}", hint="pass one that is made: pcgraph.IL(gamma=0.1, steps=20)")
