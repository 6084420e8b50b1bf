"""Run a plain module with its recurrent kernels unrolled, the way that pcgraph captures them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

from ..capture.recurrent import UNROLLED


class unrolled(TorchFunctionMode):
    """Context manager: ``torch.lstm`` and its kin run one step per time instead of one fused kernel.

    Backprop through the module then goes through the very network that Z-IL learns on, so that the two can be
    compared bit for bit; fused float32 kernels round differently.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        replacement = UNROLLED.get(func)
        result = NotImplemented if replacement is None else replacement(*args, **kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result
