"""Autocast's casts of weights, made vertices of their own.

Under autocast torch casts a weight once and uses the cast copy again and again, so that the errors of all uses
are summed in low precision before one cast back. A cast inside every vertex would sum in high precision: another
result. Autograd's own graph tells which calls used which cast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

_available = cache(torch.amp.is_autocast_available)  # by device type; asked at every call


class Cast(NamedTuple):
    """A weight that a call read through a cast copy; `node` is autograd's node of that copy, one per copy."""

    weight: torch.Tensor
    node: Any


def autocast_device() -> str | None:
    """The device type whose autocast is on, if any."""
    for device in ("cpu", "cuda", "mps", "xpu"):
        if _available(device) and torch.is_autocast_enabled(device):
            return device
    return None


def casts(results: Sequence[torch.Tensor], operands: Sequence[torch.Tensor], first_sequence: int) -> list[Cast]:
    """The casts of leaf operands that the call used.

    Args:
        results: tensors that the call returned.
        operands: tensors that it was given.
        first_sequence: autograd's sequence number before the call; older nodes belong to other calls.
    """
    leaves = {id(t): t for t in operands if t.is_leaf and t.requires_grad}
    if not leaves:
        return []
    found: dict[int, Cast] = {}
    stack: list[Any] = [t.grad_fn for t in results if t.grad_fn is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "ToCopyBackward0":
            target = node.next_functions[0][0]
            weight = leaves.get(id(getattr(target, "variable", None)))
            if weight is not None:
                found[id(weight)] = Cast(weight, node)
                continue
        if node.name() != "torch::autograd::AccumulateGrad" and node._sequence_nr() >= first_sequence:
            stack.extend(child for child, _ in node.next_functions)
    return list(found.values())


def sequence_number() -> int:
    """Autograd's next sequence number on this thread."""
    node = torch.ones((), requires_grad=True).exp().grad_fn
    assert node is not None
    return node._sequence_nr() + 1
