"""Imported modules in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from pcgraph.onnx.operators.elementwise import cast

SINGLE, DOUBLE = 1, 11  # TensorProto.DataType


def widened(module: nn.Module) -> nn.Module:
    """A copy in float64, in which casts to float32 that stand in the file are to float64."""
    wide = copy.deepcopy(module).double()
    for inner in wide.modules():
        if isinstance(inner, fx.GraphModule):
            for node in inner.graph.nodes:
                if node.target is cast and node.kwargs.get("to") == SINGLE:
                    node.kwargs = {**node.kwargs, "to": DOUBLE}
                if node.op == "call_function":  # tensors that are made of numbers
                    node.args = fx.node.map_aggregate(node.args, lambda a: torch.float64 if a is torch.float32 else a)
            inner.recompile()
    return wide


def doubled(args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Arguments for it."""
    return tuple(arg.double() if arg.is_floating_point() else arg for arg in args)
