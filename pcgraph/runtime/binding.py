"""Where a program's values come from in a call, and how its outputs become the model's return value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Binding:
    """Connects a program to the caller. Knows nothing of how the model was captured.

    Attributes:
        sources: per external of the program, the index of a call input, or None.
        tensors: per external, the model's own tensor, or None for inputs.
        rebuild: makes the return value from the program's outputs.
    """

    sources: tuple[int | None, ...]
    tensors: tuple[torch.Tensor | None, ...]
    rebuild: Callable[[Sequence[Any]], Any]

    def values(self, inputs: Sequence[torch.Tensor]) -> list[Any]:
        """Values of the program's externals for these inputs."""
        return [
            tensor if index is None else inputs[index] for index, tensor in zip(self.sources, self.tensors, strict=True)
        ]
