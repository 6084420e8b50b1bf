"""Computing constants at import, after asking how large they would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..errors import OnnxImportError
from .limits import Limits

_SMALL = 4096  # elements: of tensors this small no operator without a shape operand makes anything large


class Folder:
    """Runs functions on constants, within limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.total = 0

    def run(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The results, as a tuple.

        Raises:
            OnnxImportError: they would be larger than ``limits.folded_bytes``.
        """
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        literal = any(isinstance(arg, list | int | float) for arg in args)
        if literal or sum(tensor.numel() for tensor in tensors) > _SMALL:
            self._count(_predicted_bytes(function, args, kwargs), sum(tensor.nbytes for tensor in tensors))
        with torch.no_grad():
            results = function(*args, **kwargs)
        return tuple(results) if isinstance(results, tuple | list) else (results,)

    def _count(self, predicted: int | None, given: int) -> None:
        """Refuse what is too large; of results whose size depends on values, the operands tell what to expect."""
        size = given * 8 if predicted is None else predicted
        self.total += size
        if max(size, self.total) > self.limits.folded_bytes:
            raise OnnxImportError(
                f"its constant result has about {size:,} bytes ({self.total:,} with the others), "
                f"more than {self.limits.folded_bytes:,}",
                hint="limits=pcgraph.onnx.Limits(folded_bytes=...)",
            )


def _predicted_bytes(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> int | None:
    """Bytes of the results, by a run without data; None if they depend on values."""
    try:
        with torch.device("meta"):
            moved = [arg.to("meta") if isinstance(arg, torch.Tensor) else arg for arg in args]
            named = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
            results = function(*moved, **named)
    except Exception:  # values are needed, or the operands are wrong, which the real run will say
        return None
    results = results if isinstance(results, tuple | list) else (results,)
    return sum(result.nbytes for result in results if isinstance(result, torch.Tensor))
