"""Where a prediction may be infinite although nothing is wrong: attention masks add ``-inf``, a logarithm meets 0.

There ``x - mu`` must be 0 and not NaN. Everywhere else the plain difference is right, and cheaper.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from ..graph import Operation, PCGraph, Role, Slot, Vertex

_BOUNDED = frozenset("softmax sigmoid tanh".split())  # finite whatever they read
_CLOSED = frozenset(  # finite if all that they read is
    (
        "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d matmul bmm mm addmm baddbmm relu gelu silu elu "
        "selu softplus leaky_relu hardtanh sin cos max_pool1d max_pool2d avg_pool2d adaptive_avg_pool2d layer_norm "
        "batch_norm group_norm flatten view reshape transpose permute t contiguous unbind chunk split unsqueeze "
        "squeeze select narrow getitem cat stack add sub mul neg square mean sum expand dropout embedding"
    ).split()
)


def finite(graph: PCGraph, vertex: Vertex, unbounded: Collection[str]) -> bool:
    """Whether a vertex predicts finite numbers wherever its model is right.

    Args:
        graph: where it lives.
        vertex: an operation.
        unbounded: vertices before it of which this is not known.
    """
    assert vertex.operation is not None

    def bounded(operation: Operation) -> bool:
        name = operation.name.strip("_")
        return name in _BOUNDED or (name in _CLOSED and all(map(usual, operation.items)))

    def usual(item: Any) -> bool:
        if isinstance(item, Operation):
            return bounded(item)
        if not isinstance(item, Slot):
            return True
        ref = vertex.operands[item.index]
        moves = graph[ref.vertex].role is not Role.OPERATION or graph.carries_error(ref)
        return moves and ref.vertex not in unbounded

    return bounded(vertex.operation)


def difference(mu: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``mu - x``, and 0 where both are the same infinity."""
    return torch.where(mu == x, torch.zeros_like(x), mu - x)
