"""Rounding: how far from backprop may the results of fused kernels be?

Both are roundings of the same real numbers. How far backprop's own float32 (or bfloat16) is from those, a run of the
plain model in float64 tells, and a fused program may be no more than a small multiple of that away.
"""

from __future__ import annotations

import torch

SLACK = 8.0  # times backprop's own distance from float64
FLOOR = 64.0  # roundings of the largest entry, where backprop's distance happens to be less
BLIND = 1e-3  # of the largest entry, from backprop itself, where there is no run in float64
BLIND_64 = 1e-10  # the same for float64, where nothing finer tells
_LOST = 0.1  # a run in float64 whose outputs are further away than this drew other random numbers


def distance(a: torch.Tensor, b: torch.Tensor, exact: torch.Tensor | None, among: float = 0.0) -> tuple[float, float]:
    """Relative distance of `b` from the exact tensor, and how much is allowed.

    Args:
        a: backprop's tensor, floating.
        b: the network's, of the same shape.
        exact: the same in float64, or None; then the distance is that from `a`.
        among: largest entry of all tensors of this kind: where numbers of that size cancel out (the gradient of a bias
            before a normalisation), only their roundings are left.

    >>> distance(torch.tensor([1.0]), torch.tensor([1.0 + 2**-23]), torch.tensor([1.0], dtype=torch.float64))
    (1.1920928955078125e-07, 7.62939453125e-06)
    """
    wide_a, wide_b = _wide(a), _wide(b)
    finite = torch.isfinite(wide_a)
    if not torch.equal(finite, torch.isfinite(wide_b)):
        return float("inf"), 0.0
    eps = torch.finfo(a.dtype).eps
    double = a.dtype in (torch.float64, torch.complex128)
    blind = exact is None or exact.shape != a.shape or double
    middle = wide_a if exact is None or blind else _wide(exact)
    scale = largest(middle, finite)
    gap, own = largest(wide_b - middle, finite), largest(wide_a - middle, finite)
    explained = (BLIND_64 if double else BLIND) * scale if blind else SLACK * own
    allowed = max(explained, FLOOR * eps * scale, SLACK * eps * among)
    unit = max(scale, eps * among) or 1.0
    return gap / unit, allowed / unit


def same_run(a: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether an output in float64 is the output `a` at all: some random numbers come out differently in float64."""
    if a.shape != exact.shape or not (a.is_floating_point() or a.is_complex()):
        return a.shape == exact.shape and torch.equal(a, exact)
    wide, middle = _wide(a), _wide(exact)
    finite = torch.isfinite(wide)
    return largest(wide - middle, finite) <= _LOST * largest(middle, finite)


def largest(tensor: torch.Tensor, where: torch.Tensor | None = None) -> float:
    """Largest absolute value of a real tensor, among some of its entries."""
    if not tensor.numel():
        return 0.0
    return (tensor if where is None else torch.where(where, tensor, 0.0)).abs().max().item()


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.to(torch.complex128)) if tensor.is_complex() else tensor.double()
