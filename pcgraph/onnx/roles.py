"""Which tensors of a file are weights that learn.

A file does not say. Floats of at least one dimension are, unless they are used as something that is no weight by
nature: statistics of a batch norm, weights of a loss, bounds, masks, exponents, paddings. Scalars are settings, and a
tensor that holds an infinity is a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from .operators import find

if TYPE_CHECKING:
    import onnx_ir as ir

# What changes the form of a weight and not its role.
_THROUGH = ("Identity", "Cast", "CastLike", "Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand")


_LAYERS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")


@dataclass(frozen=True)
class Candidate:
    """A float tensor of the file, for a function given as ``trainable=``.

    Attributes:
        name: its ONNX name.
        tensor: its elements; not to be written to.
        uses: operator and operand index of every use.
    """

    name: str
    tensor: torch.Tensor
    uses: tuple[tuple[str, int], ...]


Uses: TypeAlias = "tuple[tuple[ir.Node, int], ...]"
Trainable: TypeAlias = Literal["auto", "all", "none"] | Callable[[Candidate], bool]


def is_trainable(name: str, tensor: torch.Tensor, uses: Uses, trainable: Trainable, version: int) -> bool:
    """Whether an initializer (or constant), or what is copied of it for some uses, becomes a parameter."""
    if not tensor.is_floating_point() or trainable == "none":
        return False
    slots = [_slot(node, operand, version) for node, operand in uses]
    if "setting" in slots:
        return False  # read in Python, or moved by training itself: no gradient reaches it
    if callable(trainable):
        named = tuple((node.op_type, operand) for node, operand in uses)
        return bool(trainable(Candidate(name, tensor, named)))
    if trainable == "all":
        return True
    if tensor.numel() == 1 and all(_is_arithmetic(node, operand) for node, operand in uses):
        return False  # an exporter's factor or epsilon
    if tensor.dim() == 0 or "fixed" in slots or not _is_finite(tensor):
        return False
    return not (_is_placeholder_affine(uses, tensor) or _is_fill(uses, tensor))


def unreached(graph: ir.Graph) -> frozenset[ir.Value]:
    """Values of a sorted graph from which no gradient comes to its outputs.

    All that is made of them is compared, counted or rounded to whole numbers: such as the numbers of the regions that
    the mask of shifted windows is computed from.
    """
    reached = {value for value in graph.outputs if _is_real(value)}
    for node in reversed(graph):
        if any(out in reached for out in node.outputs):
            reached.update(value for value in _operands(node) if _is_real(value))
    every = [*graph.initializers.values(), *(out for node in graph for out in node.outputs)]
    return frozenset(value for value in every if value not in reached)


def _operands(node: ir.Node) -> Iterator[ir.Value]:
    """What a node and the graphs inside of it read."""
    import onnx_ir as ir

    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type is ir.AttributeType.GRAPH:
            inner = attribute.as_graph()
            yield from inner.outputs
            for one in inner:
                yield from _operands(one)


def _is_real(value: ir.Value) -> bool:
    """Whether it may hold floats; so may what inference could not tell the type of."""
    import onnx_ir as ir

    return value.dtype is None or not (value.dtype.is_integer() or value.dtype is ir.DataType.BOOL)


def uses_of(value: ir.Value) -> Uses:
    """Operands that the value reaches, changes of form looked through."""
    return tuple(reached for use in value.uses() for reached in uses_from(use.node, use.idx))


def uses_from(node: ir.Node, operand: int) -> Uses:
    """This operand, and those that it reaches if the node changes form only."""
    further = node.op_type in _THROUGH and node.domain in ("", "ai.onnx") and operand == 0
    return ((node, operand), *(uses_of(node.outputs[0]) if further else ()))


def _slot(node: ir.Node, operand: int, version: int) -> str:
    domain = "" if node.domain == "ai.onnx" else node.domain
    row = find(domain, node.op_type, version if domain == "" else 1)
    if row is None:
        return "weight"
    if operand in row.settings:
        return "setting"
    return "fixed" if operand in row.fixed else "weight"


def _is_arithmetic(node: ir.Node, operand: int) -> bool:
    """Whether an operand of one number is just calculated with: not as the bias of a layer of one unit."""
    if node.op_type == "Add":
        other = node.inputs[1 - operand]
        producer = other.producer() if other is not None else None
        return producer is None or producer.op_type not in _LAYERS
    return node.op_type in (*_THROUGH, "Div", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub")


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are; their sum is looked at first, which is quicker."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _is_fill(uses: tuple[tuple[ir.Node, int], ...], tensor: torch.Tensor) -> bool:
    """Equal numbers that are written into a part of another tensor: an assignment such as ``mask[:, :7] = 3``."""
    written = all(
        node.op_type in ("Scatter", "ScatterElements", "ScatterND") and operand == 2 for node, operand in uses
    )
    return bool(uses) and written and bool((tensor == tensor.reshape(-1)[0]).all() if tensor.numel() else True)


def _is_placeholder_affine(uses: tuple[tuple[ir.Node, int], ...], tensor: torch.Tensor) -> bool:
    """Ones and zeros that torch's exporter gives an InstanceNormalization that is half of a group norm.

    The group norm's own scale and bias follow behind the Reshape; these two were never parameters.
    """
    for node, operand in uses:
        if node.op_type != "InstanceNormalization" or operand == 0:
            return False
        producer = node.inputs[0].producer() if node.inputs[0] is not None else None
        after = [use.node.op_type for use in node.outputs[0].uses()]
        if producer is None or producer.op_type != "Reshape" or after != ["Reshape"]:
            return False
    first = float(tensor.reshape(-1)[0]) if uses and tensor.numel() else None
    return first in (0.0, 1.0) and bool((tensor == first).all())
