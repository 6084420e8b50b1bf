"""Where a program's values come from in a call, and how its outputs become the model's return value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .held import Held


@dataclass(frozen=True)
class Binding:
    """Connects a program to the caller. Knows nothing of how the model was captured.

    Attributes:
        sources: per external of the program, the index of a call input, or None.
        tensors: per external, the model's own tensor, or None for inputs.
        rebuild: makes the return value from the program's outputs.
        woken: inputs that a call makes require a gradient.
        changed: externals that a call writes to, in place, with a gradient, and the outputs that they become.
        held: tensor objects that a call leaves with the caller besides; only in a program of one call.
    """

    sources: tuple[int | None, ...]
    tensors: tuple[torch.Tensor | None, ...]
    rebuild: Callable[[Sequence[Any]], Any]
    held: tuple[Held, ...] = ()
    changed: tuple[tuple[int, int], ...] = ()
    woken: tuple[int, ...] = ()

    def values(self, inputs: Sequence[torch.Tensor]) -> list[Any]:
        """Values of the program's externals for these inputs."""
        return [
            tensor if index is None else inputs[index] for index, tensor in zip(self.sources, self.tensors, strict=True)
        ]
