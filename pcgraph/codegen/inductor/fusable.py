"""Which lines a compiler may take: calls of ATen operators that neither write, nor draw random numbers, nor read back.

Everything else (opaque vertices, dropout, in-place kinds, what checkpoints do to the random state) stays a line of its
own, in its place, so that buffers and random numbers are what they are without the compiler.
"""

from __future__ import annotations

import operator
import types
from typing import Any

import torch

from ..lines import Line
from .ssa import ADD

_aten = torch.ops.aten
_REFUSED_TAGS = (
    torch.Tag.nondeterministic_seeded,
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
)
# Write to running statistics behind their schema's back.
_HIDDEN_WRITES = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm"}
# Go to a library as they are: nothing is gained where there is nothing else.
_LIBRARY = {
    "mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "convolution", "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention",
}  # fmt: skip
_VIEWS = {
    "view", "_unsafe_view", "t", "transpose", "permute", "expand", "unsqueeze", "squeeze", "select", "slice", "split",
    "unbind", "detach", "alias", "as_strided", "split_with_sizes",
}  # fmt: skip


def fusable(line: Line) -> bool:
    """Whether a line is a pure call of an ATen operator on strided tensors."""
    if line.text == ADD or line.target is operator.getitem:
        return True
    target: Any = line.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return False
    name = target._schema.name.split("::")[1]
    if target._schema.is_mutable or name in _HIDDEN_WRITES or "empty" in name:  # unwritten memory proves nothing
        return False
    if any(tag in target.tags for tag in _REFUSED_TAGS):
        return False
    return not any(isinstance(value, torch.Tensor | torch.Generator) for _, value in line.constants)


def weight(line: Line) -> int:
    """What a compiler can gain from a line: 1 for arithmetic, 0 for views and for what goes to a library anyhow."""
    if line.target is operator.getitem:
        return 0
    name = operator_name(line)
    return 0 if name in _LIBRARY or name in _VIEWS else 1


def is_product(line: Line) -> bool:
    """Whether a line goes to a library as it is."""
    return operator_name(line) in _LIBRARY


def is_view(line: Line) -> bool:
    """Whether a line looks at memory that is there already, or may do so."""
    return operator_name(line) in _VIEWS


def operator_name(line: Line) -> str:
    """Name of the operator without its namespace and overload, or of torch's own function; empty for anything else."""
    if line.text == ADD:
        return "add"
    target: Any = line.target
    if isinstance(target, torch._ops.OpOverload):
        name: str = target._schema.name.split("::")[1]
        return name
    return target.__name__ if isinstance(target, types.BuiltinFunctionType | types.MethodDescriptorType) else ""
