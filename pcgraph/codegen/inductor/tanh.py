"""The hyperbolic tangent in plain arithmetic, where the vector library's costs more than everything around it.

In float32 on a CPU the library evaluates ``tanh`` to the last digit but one, in the time of twenty additions of memory
in cache. A polynomial near 0 and one exponential elsewhere are as close to float64, up to two roundings, in two thirds
of that time, and fuse with what stands around them.

Source: S. L. Moshier, Cephes, ``tanhf``.
"""

from __future__ import annotations

from typing import Any

import torch

_ODD = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_NEAR = 0.625  # where the polynomial ends


def tanh(x: torch.Tensor) -> torch.Tensor:
    """``torch.tanh`` of float32, within 2.3 units in the last place; ``-0`` becomes ``0``.

    >>> tanh(torch.tensor([-100.0, 0.0, 0.5])).tolist()
    [-1.0, 0.0, 0.46211716532707214]
    """
    size, square = x.abs(), x * x
    sum_ = square * _ODD[0] + _ODD[1]
    for coefficient in _ODD[2:]:
        sum_ = sum_ * square + coefficient
    near = sum_ * square * x + x
    far = 1 - 2 / (torch.exp(size * 2) + 1)
    return torch.where(size < _NEAR, near, torch.where(x < 0, -far, far))


def decompositions() -> dict[Any, Any]:
    """What to trace in place of an operator; falls back to the operator itself for other types and devices."""

    def traced(x: torch.Tensor) -> Any:
        return tanh(x) if x.dtype is torch.float32 and x.device.type == "cpu" else NotImplemented

    return {torch.ops.aten.tanh.default: traced}
