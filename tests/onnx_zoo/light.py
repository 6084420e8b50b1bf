"""The `light_*` architectures of the onnx wheel, with random weights where the files have constants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

VARIANCE = 4  # operand of BatchNormalization
SCALE = 0.3  # of norms; where blocks add up, 1 lets signals grow until the softmax at the end has no slope left


def filled(path: Path) -> Any:
    """The model with an initializer of random numbers for every ConstantOfShape that makes a weight.

    Matrices and kernels are normal with a variance of 2 over the number of inputs, so that signals keep their size;
    variances of batch norms lie between 0.5 and 1.5, all other vectors are normal.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    uses: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for operand, name in enumerate(node.input):
            uses.setdefault(name, []).append((node, operand))
    random = np.random.default_rng(sum(map(ord, path.stem)))
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        [name] = node.output
        shape = tuple(int(size) for size in shapes[node.input[0]].reshape(-1))
        weight = _random(random, shape, uses.get(name, []))
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for field in (graph.initializer, graph.input):
        unused = [entry for entry in field if entry.name not in used]
        for entry in unused:
            field.remove(entry)
    model.ir_version = max(model.ir_version, 4)  # from then on, initializers need not be inputs
    onnx.checker.check_model(model)
    return model


def _random(random: np.random.Generator, shape: tuple[int, ...], uses: list[tuple[Any, int]]) -> np.ndarray:
    if any(node.op_type == "BatchNormalization" and operand == VARIANCE for node, operand in uses):
        return random.uniform(0.5, 1.5, shape)
    if len(shape) < 2:
        return 0.1 * random.standard_normal(shape) + (SCALE if any(operand == 1 for _, operand in uses) else 0)
    transposed = any(node.op_type == "Gemm" and not _transposed(node) for node, _ in uses)
    inputs = shape[0] if transposed else math.prod(shape[1:])
    return random.standard_normal(shape) * math.sqrt(2 / inputs)


def _transposed(node: Any) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)
