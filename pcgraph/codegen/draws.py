"""Random numbers of one vertex: drawn once by the model, and the same ones again at every later prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..graph import Operation
from .lines import Line, fresh_name

State = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Draw:
    """The generators that an operation draws from.

    Attributes:
        own: generators among its arguments; the default ones of the CPU and of CUDA count in any case.
    """

    own: tuple[torch.Generator, ...]

    @staticmethod
    def of(operation: Operation) -> Draw:
        """The generators of an operation."""
        items = (item for part in operation.parts for item in part.items)
        return Draw(tuple(item for item in items if isinstance(item, torch.Generator)))

    def state(self) -> State:
        """Where the generators stand."""
        used = torch.cuda.is_available() and torch.cuda.is_initialized()
        cuda = torch.cuda.get_rng_state_all() if used else []
        return torch.get_rng_state(), cuda, [generator.get_state() for generator in self.own]

    def swap(self, state: State) -> State:
        """Put the generators somewhere else; returns where they stood."""
        before = self.state()
        default, cuda, own = state
        torch.set_rng_state(default)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        for generator, item in zip(self.own, own, strict=True):
            generator.set_state(item)
        return before

    def line(self, method: str, reads: tuple[str, ...], out: str | None) -> Line:
        """A line that calls one of the methods."""
        name = fresh_name()
        text = f"{name}({', '.join(['%s'] * len(reads))})"
        return Line((out,) if out else (), text, reads, ((name, getattr(self, method)),))
