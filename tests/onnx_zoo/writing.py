"""Writes the files, and reads what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.onnx_zoo.architectures import Answer
from tests.onnx_zoo.exports import EXPORTED, Export


def write(export: Export, model: nn.Module, path: Path) -> None:
    """Export the model, the first dimension of its inputs open.

    Raises:
        Exception: whatever the exporter raises.
    """
    args = export.call(EXPORTED, seed=0)
    names = [f"input_{k}" for k in range(len(args))]
    if export.dynamo:
        shapes: Any = tuple({0: "batch"} for _ in args)
        shapes = (shapes,) if isinstance(model, Answer) else shapes  # an entry for ``*tensors``
        torch.onnx.export(
            model, args, path, input_names=names, dynamic_shapes=shapes, opset_version=export.opset, dynamo=True,
            verbose=False,
        )  # fmt: skip
    else:
        mode = torch.onnx.TrainingMode.TRAINING if export.train else torch.onnx.TrainingMode.EVAL
        axes = {name: {0: "batch"} for name in names}
        torch.onnx.export(
            model, args, str(path), input_names=names, dynamic_axes=axes, opset_version=export.opset, dynamo=False,
            training=mode, do_constant_folding=not export.train,
        )  # fmt: skip


def size(path: Path) -> int:
    """Bytes of a file and of the data beside it."""
    return sum(part.stat().st_size for part in (path, path.with_name(f"{path.name}.data")) if part.exists())


def tensors(model: Any) -> dict[str, Tensor]:
    """Every float tensor that is written in a file, by name: initializers and constants, those of inner graphs too."""
    from onnx import numpy_helper

    found: dict[str, Tensor] = {}
    for name, proto in _written(model.graph):
        if proto.data_type in (1, 10, 11):
            array = numpy_helper.to_array(proto)
            found.setdefault(name, torch.from_numpy(array.copy()))
    return found


def _written(graph: Any) -> Iterator[tuple[str, Any]]:
    for proto in graph.initializer:
        yield proto.name, proto
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                yield node.output[0], attribute.t
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _written(inner)


def nodes(graph: Any) -> int:
    """Number of nodes, those of inner graphs too."""
    inner = [a for node in graph.node for a in node.attribute]
    return len(graph.node) + sum(nodes(g) for a in inner for g in (*([a.g] if a.HasField("g") else []), *a.graphs))
