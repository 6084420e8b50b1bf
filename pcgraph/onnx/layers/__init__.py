"""Real `torch.nn` modules for nodes whose operands are weights of the file.

A builder answers None where no module computes the same; the node then becomes a function call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..values import Value
from . import conv, linear, norm, recurrent, table
from .site import Site

Built = Value | Sequence[Value | None] | None

_BUILDERS: dict[str, Callable[[Site], Built]] = {
    "BatchNormalization": norm.batch_norm,
    "Conv": conv.conv,
    "ConvTranspose": conv.conv_transpose,
    "Dropout": norm.dropout,
    "GRU": recurrent.gru,
    "Gather": table.embedding,
    "Gemm": linear.gemm,
    "GroupNormalization": norm.group_norm,
    "InstanceNormalization": norm.instance_norm,
    "LSTM": recurrent.lstm,
    "LayerNormalization": norm.layer_norm,
    "MatMul": linear.matmul,
    "RNN": recurrent.rnn,
}

__all__ = ["Site", "build"]


def build(site: Site) -> Built:
    """The outputs of a node as a module computes them; None if there is no such module."""
    builder = _BUILDERS.get(site.op)
    return None if builder is None else builder(site)
