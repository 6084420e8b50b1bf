"""What is traced in place of some operators on a CPU, beyond what Inductor itself takes apart."""

from __future__ import annotations

from typing import Any

import torch
from torch._inductor import inductor_prims

from .tanh import tanh

_aten = torch.ops.aten


def decompositions() -> dict[Any, Any]:
    """By operator; each falls back to the operator itself for other types and devices."""
    return {_aten.tanh.default: _tanh, _aten.addmm.default: _addmm}


def _tanh(x: torch.Tensor) -> Any:
    return tanh(x, inductor_prims.fma) if x.dtype is torch.float32 and x.device.type == "cpu" else NotImplemented


def _addmm(bias: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """A bias goes to the kernel behind the product; before it, the library would copy it into every row.

    Seen as one matrix of several, or Inductor would put the two together again.
    """
    if bias.dim() != 1 or beta != 1 or alpha != 1 or bias.device.type != "cpu":
        return NotImplemented
    return (torch.mm(a, b).unsqueeze(0) + bias).squeeze(0)
