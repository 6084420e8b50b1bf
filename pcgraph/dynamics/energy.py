"""Energies: what it costs a value node to differ from its prediction.

Inference descends the sum of all energies, ``F = sum_v e_v(x_v, mu_v)``. An energy is asked for three things, all of
one vertex alone: its value, the pull on its own value node ``de/dx``, and the message ``-de/dmu`` that goes to the
parents through the vertex's Jacobians. For the Gaussian energy of theory section 1 both are the error node itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import PCGraphError

Function = Callable[[Tensor, Tensor], Tensor]


class Energy(ABC):
    """The energy of one vertex; x, mu and eps have the shape of its value.

    Attributes:
        clamped_only: it has no lowest point in x, so that the value node must be clamped as a whole.
    """

    clamped_only: ClassVar[bool] = False

    def error(self, x: Tensor, mu: Tensor) -> Tensor:
        """The error node of a clamped value."""
        return difference(x, mu)

    @abstractmethod
    def value(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        """The energy, a 0-dim tensor summed over all elements."""

    @abstractmethod
    def pull(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        """``de/dx``."""

    @abstractmethod
    def message(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        """``-de/dmu``."""


@final
@dataclass(frozen=True, eq=False)
class Gaussian(Energy):
    """``1/2 sum precision * (x - mu)^2``: the squared prediction error, weighted by its precision.

    Attributes:
        precision: above 0; a number, or a tensor that broadcasts to the value (inverse variance per element).

    >>> import torch
    >>> eps = torch.tensor([1.0, 2.0])
    >>> Gaussian(precision=0.5).value(eps, torch.zeros(2), eps)
    tensor(1.2500)
    """

    precision: float | Tensor = 1.0

    def __post_init__(self) -> None:
        if not bool(torch.all(torch.as_tensor(self.precision) > 0)):
            raise PCGraphError(f"precision={self.precision} is not positive", hint="use numbers above 0")

    def value(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return 0.5 * self._weighted(eps.abs().square()).sum()

    def pull(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return self._weighted(eps)

    def message(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return self._weighted(eps)

    def _weighted(self, tensor: Tensor) -> Tensor:
        if isinstance(self.precision, Tensor):
            return tensor * self.precision.to(tensor)
        return tensor if self.precision == 1 else tensor * self.precision


@final
@dataclass(frozen=True)
class Categorical(Energy):
    """Softmax cross-entropy ``-sum x log softmax(mu)`` of a clamped value: x are probabilities, mu logits.

    Its error node is ``x - softmax(mu)`` where the probabilities sum to 1.

    Attributes:
        dim: of the classes.
    """

    clamped_only: ClassVar[bool] = True
    dim: int = -1

    def error(self, x: Tensor, mu: Tensor) -> Tensor:
        return x - torch.softmax(mu, self.dim) * x.sum(self.dim, keepdim=True)

    def value(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return -(x * torch.log_softmax(mu, self.dim)).sum()

    def pull(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return -torch.log_softmax(mu, self.dim)

    def message(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return eps


@final
@dataclass(frozen=True)
class Bernoulli(Energy):
    """``-sum x log s + (1 - x) log (1 - s)`` with ``s = sigmoid(mu)``, of a clamped value in [0, 1]; mu are logits.

    Its error node is ``x - sigmoid(mu)``.
    """

    clamped_only: ClassVar[bool] = True

    def error(self, x: Tensor, mu: Tensor) -> Tensor:
        return x - torch.sigmoid(mu)

    def value(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(mu, x, reduction="sum")

    def pull(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return -mu

    def message(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return eps


@final
@dataclass(frozen=True)
class Custom(Energy):
    """Any function ``(x, mu) -> number``, differentiable in both.

    Attributes:
        function: returns a tensor with one element.
    """

    function: Function

    def value(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return self._of(x, mu).reshape(())

    def pull(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return self._slope(x, mu, 0)

    def message(self, x: Tensor, mu: Tensor, eps: Tensor) -> Tensor:
        return -self._slope(x, mu, 1)

    def _of(self, x: Tensor, mu: Tensor) -> Tensor:
        energy = self.function(x, mu)
        if not isinstance(energy, Tensor) or energy.numel() != 1:
            raise PCGraphError("an energy is not a tensor with one element", hint="sum over the elements")
        return energy

    def _slope(self, x: Tensor, mu: Tensor, by: int) -> Tensor:
        """The derivative of this one number, by one of the two."""
        pair = [x.detach().requires_grad_(by == 0), mu.detach().requires_grad_(by == 1)]
        with torch.enable_grad():
            energy = self._of(*pair)
        if not energy.requires_grad:
            return torch.zeros_like(pair[by])
        (slope,) = torch.autograd.grad(energy, [pair[by]], allow_unused=True)
        return torch.zeros_like(pair[by]) if slope is None else slope


def as_energy(given: Energy | Function | float | Tensor) -> Energy:
    """An energy from what a user may write: one, a function, or a precision."""
    if isinstance(given, Energy):
        return given
    if isinstance(given, int | float | Tensor):
        return Gaussian(given)
    if callable(given):
        return Custom(given)
    raise PCGraphError(
        f"not an energy: {given!r}", hint="use Gaussian(precision), Categorical(), Bernoulli(), or a function"
    )


def difference(a: Tensor, b: Tensor) -> Tensor:
    """``a - b``, and 0 where both are the same infinity: attention masks predict -inf, and nothing is wrong there."""
    return torch.where(a == b, torch.zeros_like(a), a - b)
