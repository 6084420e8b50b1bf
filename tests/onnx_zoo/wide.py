"""Imported modules and files in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def widened_file(path: Path) -> Any:
    """The file's model in float64: every tensor, type and cast that is float32 in it."""
    import onnx

    model = onnx.load(path)
    for graph in _graphs(model.graph):
        del graph.value_info[:]  # inferred again
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == SINGLE:
                value.type.tensor_type.elem_type = DOUBLE
        for tensor in graph.initializer:
            _widen(tensor)
        for node in graph.node:
            _widen_node(node)
    return model


def _widen_node(node: Any) -> None:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name in ("to", "dtype", "output_datatype") and attribute.i == SINGLE:
            attribute.i = DOUBLE
        elif attribute.name in ("value_float", "value_floats"):
            numbers = helper.get_attribute_value(attribute)
            shape = [len(numbers)] if attribute.name == "value_floats" else []
            tensor = helper.make_tensor("", DOUBLE, shape, numbers if shape else [numbers])
            attribute.CopyFrom(helper.make_attribute("value", tensor))
        elif attribute.HasField("t"):
            _widen(attribute.t)
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", helper.make_tensor("", DOUBLE, [1], [0.0])))


def _widen(tensor: Any) -> None:
    from onnx import numpy_helper

    if tensor.data_type == SINGLE:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float64"), tensor.name))


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)
