"""How a parameter was made from an initializer of the file: a chain of reorderings, each of which can be undone.

Every step only moves elements, so that the way back needs no inverse: the steps are run on the elements' numbers, and
each of the parameter's elements is written where its number says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch


@dataclass(frozen=True)
class Permute:
    """Dimensions in another order."""

    order: tuple[int, ...]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.permute(self.order)


@dataclass(frozen=True)
class Select:
    """One slice of a dimension."""

    dim: int
    index: int

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.select(self.dim, self.index)


@dataclass(frozen=True)
class Blocks:
    """Some of the equal blocks of a dimension, in this order."""

    dim: int
    count: int
    order: tuple[int, ...]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        blocks = tensor.chunk(self.count, self.dim)
        return torch.cat([blocks[i] for i in self.order], self.dim)


@dataclass(frozen=True)
class Reshape:
    """Another shape of the same elements."""

    shape: tuple[int, ...]

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.reshape(self.shape)


Step: TypeAlias = Permute | Select | Blocks | Reshape
Steps: TypeAlias = tuple[Step, ...]


def simplified(steps: Steps) -> Steps:
    """The same chain with neighbouring permutations made one, and none where it changes nothing."""
    result: list[Step] = []
    for step in steps:
        last = result[-1] if result else None
        if isinstance(step, Permute) and isinstance(last, Permute):
            result.pop()
            step = Permute(tuple(last.order[i] for i in step.order))
        if not (isinstance(step, Permute) and step.order == tuple(range(len(step.order)))):
            result.append(step)
    return tuple(result)


def run(steps: Steps, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor after all steps."""
    for step in steps:
        tensor = step(tensor)
    return tensor


def write_back(steps: Steps, parameter: torch.Tensor, initializer: torch.Tensor) -> None:
    """Write a parameter's elements to where in the initializer they came from, in place.

    >>> initializer = torch.zeros(2, 3)
    >>> write_back((Permute((1, 0)),), torch.arange(6.0).reshape(3, 2), initializer)
    >>> initializer
    tensor([[0., 2., 4.],
            [1., 3., 5.]])
    """
    places = run(steps, torch.arange(initializer.numel()).reshape(initializer.shape))
    initializer.view(-1)[places.reshape(-1)] = parameter.detach().reshape(-1).to(initializer)
