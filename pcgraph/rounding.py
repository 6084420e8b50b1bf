"""Rounding: how far from backprop may the results of fused kernels be?

Both are roundings of the same real numbers. How far backprop's own float32 (or bfloat16) is from those, a run of the
plain model in float64 tells, and a fused program may be no more than a small multiple of that away.
"""

from __future__ import annotations

import torch

SLACK = 8.0  # times backprop's own distance from float64
FLOOR = 64.0  # roundings of the largest entry, where backprop's distance happens to be less
BLIND = 1e-3  # of the largest entry, from backprop itself, where there is no run in float64
_LOST = 0.1  # a run in float64 whose outputs are further away than this drew other random numbers


def distance(a: torch.Tensor, b: torch.Tensor, exact: torch.Tensor | None) -> tuple[float, float]:
    """Relative distance of `b` from the exact tensor, and how much is allowed.

    Args:
        a: backprop's tensor, floating.
        b: the network's, of the same shape.
        exact: the same in float64, or None; then the distance is that from `a`.

    >>> distance(torch.tensor([1.0]), torch.tensor([1.0 + 2**-23]), torch.tensor([1.0], dtype=torch.float64))
    (1.1920928955078125e-07, 7.62939453125e-06)
    """
    wide_a, wide_b = _wide(a), _wide(b)
    finite = torch.isfinite(wide_a)
    if not torch.equal(finite, torch.isfinite(wide_b)):
        return float("inf"), 0.0
    eps = torch.finfo(a.dtype).eps
    if exact is not None and exact.shape == a.shape:
        middle = _wide(exact)
        return _gap(wide_b, middle, finite), max(SLACK * _gap(wide_a, middle, finite), FLOOR * eps)
    return _gap(wide_b, wide_a, finite), max(BLIND, FLOOR * eps)


def same_run(a: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether an output in float64 is the output `a` at all: some random numbers come out differently in float64."""
    if a.shape != exact.shape or not (a.is_floating_point() or a.is_complex()):
        return a.shape == exact.shape and torch.equal(a, exact)
    wide = _wide(a)
    return _gap(wide, _wide(exact), torch.isfinite(wide)) < _LOST


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.to(torch.complex128)) if tensor.is_complex() else tensor.double()


def _gap(one: torch.Tensor, two: torch.Tensor, where: torch.Tensor) -> float:
    """Largest difference over the largest entry."""
    if not one.numel():
        return 0.0
    scale = torch.where(where, two, 0.0).abs().max().item()
    gap = torch.where(where, one - two, 0.0).abs().max().item()
    return gap / scale if scale else (0.0 if gap == 0 else float("inf"))
