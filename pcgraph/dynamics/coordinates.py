"""Two ways to hold one dynamics: the value is the state, or the error is.

Both move the same network. ``x - mu`` loses an error that is small beside its prediction; an error that is
itself the state keeps all its digits (theory section 4).

A value that no error has come to yet is the very tensor that it was: the same numbers in another layout may be rounded
otherwise by the vertices that read them, and that would be an error before its time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, final

from torch import Tensor

from ..errors import PCGraphError
from ..graph import Ref
from .energy import difference

if TYPE_CHECKING:
    from .network import Network


class Coordinates(ABC):
    """How hidden values and errors follow from a velocity and a new prediction.

    A step is `advance`, then a sweep in forward order that hands every new prediction to `settle`:
    when mu_v arrives, all parents of v are settled.
    """

    name: ClassVar[str]

    @abstractmethod
    def place(self, network: Network, ref: Ref, mu: Tensor, error: Tensor) -> None:
        """Put a hidden value `error` away from its prediction, whatever it was before."""

    @abstractmethod
    def advance(self, network: Network, velocity: Mapping[Ref, Tensor]) -> None:
        """Take ``dx = velocity`` for every hidden value."""

    @abstractmethod
    def settle(self, network: Network, ref: Ref, mu: Tensor) -> None:
        """Set x and eps of a hidden value, given its new prediction; `network.mu` still has the old one."""


@final
class ValueCoordinates(Coordinates):
    """State x; ``eps = x - mu`` is computed anew at every step."""

    name = "x"

    def place(self, network: Network, ref: Ref, mu: Tensor, error: Tensor) -> None:
        network.x[ref] = mu + error if network.wakes(ref, error) else mu
        network.eps[ref] = difference(network.x[ref], mu)

    def advance(self, network: Network, velocity: Mapping[Ref, Tensor]) -> None:
        for ref in network.hidden:
            if network.wakes(ref, velocity[ref]):
                network.x[ref] = network.x[ref] + velocity[ref]

    def settle(self, network: Network, ref: Ref, mu: Tensor) -> None:
        network.eps[ref] = difference(network.x[ref], mu)


@final
class ErrorCoordinates(Coordinates):
    """State eps; ``x = mu + eps``.

    From ``x(t+1) = x(t) + v`` and ``eps = x - mu``: ``eps(t+1) = eps(t) + v + (mu(t) - mu(t+1))``. The last term
    is exactly 0 wherever no parent moved.
    """

    name = "error"

    def place(self, network: Network, ref: Ref, mu: Tensor, error: Tensor) -> None:
        network.eps[ref], network.x[ref] = error, mu + error if network.wakes(ref, error) else mu

    def advance(self, network: Network, velocity: Mapping[Ref, Tensor]) -> None:
        for ref in network.hidden:
            network.eps[ref] = network.eps[ref] + velocity[ref]

    def settle(self, network: Network, ref: Ref, mu: Tensor) -> None:
        self.place(network, ref, mu, network.eps[ref] + difference(network.mu[ref], mu))


def coordinates_named(name: str) -> Coordinates:
    """``"x"`` or ``"error"``."""
    kinds: dict[str, type[Coordinates]] = {kind.name: kind for kind in (ValueCoordinates, ErrorCoordinates)}
    if name not in kinds:
        raise PCGraphError(f"coordinates={name!r} are not known", hint="use 'x' or 'error'")
    return kinds[name]()
