"""Proof of a compiled region: on the tensors of its first call it is as close to float64 as the emitted lines are.

Fused kernels add up in another order and keep more digits between two operations, so their results are not the bits of
the lines one by one. Both are roundings of the same real numbers; how far the lines themselves are from those, a run in
float64 tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

SLACK = 4.0  # times the distance of the emitted lines
FLOOR = 16.0  # roundings of the largest entry, where those happen to have none
BLIND = 256.0  # the same, where no run in float64 is possible


def objection(
    inputs: Sequence[torch.Tensor],
    emitted: Sequence[torch.Tensor],
    fused: Sequence[Any],
    exact: Callable[[], Sequence[Any]],
) -> str | None:
    """Why a region should not be used, or None.

    Args:
        inputs: its arguments.
        emitted: results of its lines, one by one.
        fused: results of the compiled region.
        exact: evaluates the lines in float64; may raise.
    """
    if len(emitted) != len(fused):
        return f"returns {len(fused)} tensors, not {len(emitted)}"
    for k, (a, b) in enumerate(zip(emitted, fused, strict=True)):
        if not isinstance(b, torch.Tensor) or (a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device):
            return f"result {k} is of another kind"
        if _strides(a) != _strides(b):
            return f"result {k} has strides {tuple(b.stride())}, not {tuple(a.stride())}"
    if any(result is value for result in fused for value in inputs):
        return "it returns an argument itself"  # a parameter, perhaps
    if _sharing(inputs, emitted) != _sharing(inputs, fused):
        return "its results share other memory"
    try:
        reference: Sequence[Any] = exact()
    except Exception:  # an operator that has no float64 form
        reference = [None] * len(emitted)
    for k, (a, b, r) in enumerate(zip(emitted, fused, reference, strict=True)):
        if torch.equal(a, b):
            continue
        if not a.is_floating_point():
            return f"result {k} differs, and is not a rounded number"
        gap, allowed = distances(a, b, r)
        if not gap <= allowed:
            return f"result {k} is {gap:.1e} from float64, more than {allowed:.1e}"
    return None


def distances(a: torch.Tensor, b: torch.Tensor, reference: Any) -> tuple[float, float]:
    """Distance of `b` from the reference (or from `a`, without one), and what `a` allows it to be."""
    eps = torch.finfo(a.dtype).eps
    wide_a, wide_b = a.double(), b.double()
    if not torch.equal(torch.isfinite(wide_a), torch.isfinite(wide_b)):
        return float("inf"), 0.0
    usable = isinstance(reference, torch.Tensor) and reference.shape == a.shape and reference.is_floating_point()
    exact = reference.double() if usable else wide_a
    finite = torch.isfinite(wide_a) & torch.isfinite(exact)
    scale = _largest(wide_a, finite)
    if not usable:
        return _largest(wide_b - wide_a, finite), BLIND * eps * scale
    return _largest(wide_b - exact, finite), max(SLACK * _largest(wide_a - exact, finite), FLOOR * eps * scale)


def _largest(tensor: torch.Tensor, where: torch.Tensor) -> float:
    return torch.where(where, tensor, 0.0).abs().max().item() if tensor.numel() else 0.0


def _strides(tensor: torch.Tensor) -> tuple[int, ...]:
    """The strides that matter."""
    if 0 in tensor.shape:
        return ()
    return tuple(stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size != 1)


def _sharing(inputs: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> list[int]:
    """For every result, the first tensor in the same memory."""
    first: dict[int, int] = {}
    for k, tensor in enumerate((*inputs, *results)):
        first.setdefault(tensor.untyped_storage()._cdata, k)
    return [first[tensor.untyped_storage()._cdata] for tensor in results]
