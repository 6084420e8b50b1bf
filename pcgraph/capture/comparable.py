"""Which arguments of a call can be told apart by value. With others a graph is good for one call."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import torch

from ..marks import marks
from .objects import slots_of

_VALUES = (
    int, float, complex, str, bytes, range, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
)  # fmt: skip


def comparable(leaf: Any) -> bool:
    """Whether a non-tensor argument can be part of a program's signature: nothing but its value can be read from it."""
    if isinstance(leaf, slice):
        return all(map(comparable, (leaf.start, leaf.stop, leaf.step)))
    if isinstance(leaf, enum.Enum):
        return True
    if leaf is None or leaf is ... or type(leaf) in _VALUES:
        return True
    return isinstance(leaf, _VALUES) and not hasattr(leaf, "__dict__") and not slots_of(type(leaf))


def not_comparable(names: Sequence[str], leaves: Sequence[Any]) -> list[str]:
    """What cannot be compared among the arguments, and in the attributes that their tensors carry, for people."""
    found = [
        f"input {name!r} is a {type(leaf).__name__}, which cannot be compared"
        for name, leaf in zip(names, leaves, strict=True)
        if not isinstance(leaf, torch.Tensor) and not comparable(leaf)
    ]
    return found + [
        f"input {name!r} has an attribute {attribute!r} that cannot be compared"
        for name, leaf in zip(names, leaves, strict=True)
        if isinstance(leaf, torch.Tensor)
        for attribute, value in marks(leaf).items()
        if not comparable(value)
    ]
