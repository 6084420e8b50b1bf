"""The cases: which model is run on what, and how it is built anew as often as it is needed."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

FLOATS = (torch.float32, torch.float64)


class Role(enum.StrEnum):
    """What stands where in the model that is made of an operation or of a module."""

    PARAMETER = "parameter"  # operands are parameters and buffers of the model
    INPUT = "input"  # operands are arguments of the call; those of the sample that need a gradient are leaves
    METHOD = "method"  # the operation as a method of a tensor, on parameters
    INPLACE = "in-place"  # the in-place variant, on a clone of a parameter
    TRAIN = "train"  # a module of `torch.nn` in training mode
    EVAL = "eval"  # the same in evaluation mode


@dataclass(frozen=True)
class Built:
    """A model and the arguments of its call, made of fresh tensors, and what of its output the loss looks at."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    view: Callable[[Any], Any] = lambda output: output


@dataclass(frozen=True)
class Case:
    """One model with its arguments.

    Attributes:
        name: of the operation or module, with its variant.
        role: see `Role`.
        dtype: of the floating operands.
        index: which sample of the database.
        build: seeded; equal models with equal arguments at every call.
        rounds_alike: False if a fused kernel of oneDNN stands in for the operations; it is then left out.
        settled: False if plain torch's result is known to depend on what was in memory before.
        detail: the sample in words.
    """

    name: str
    role: Role
    dtype: torch.dtype
    index: int
    build: Callable[[], Built]
    rounds_alike: bool = True
    settled: bool = True
    detail: str = ""

    @property
    def key(self) -> str:
        """Unique, and the same in every process."""
        return f"{self.name}|{self.role}|{str(self.dtype).removeprefix('torch.')}|{self.index}"


def seed_all(seed: int) -> None:
    """Seed every generator that an operation or a sample may draw from."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed formats a traceback for every device
    random.seed(seed)
    np.random.seed(seed)


def spread(items: list[Any], most: int) -> Iterator[tuple[int, Any]]:
    """At most so many entries with their index, evenly over the list, the first and the last among them.

    >>> list(spread(list("abcde"), 3))
    [(0, 'a'), (2, 'c'), (4, 'e')]
    >>> list(spread(list("ab"), 3))
    [(0, 'a'), (1, 'b')]
    """
    count = min(len(items), most)
    for k in range(count):
        at = k * (len(items) - 1) // max(count - 1, 1)
        yield at, items[at]
