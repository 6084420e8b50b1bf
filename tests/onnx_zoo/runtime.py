"""onnxruntime, and how far two results are apart."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Runtime:
    """A file in onnxruntime on the processor, one thread, its own optimisations on unless `plain`."""

    def __init__(self, path: Path | str, *, plain: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self.session.get_inputs()]

    def __call__(self, *args: Tensor) -> list[Tensor]:
        """The outputs; the arguments in the order of the file's inputs."""
        given: Mapping[str, Any] = {n: a.detach().numpy() for n, a in zip(self.names, args, strict=True)}
        return [torch.from_numpy(np.array(out)) for out in self.session.run(None, given)]


def evaluated(model: Any, args: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a model by onnx's reference evaluator, which is NumPy and shares no code with a runtime.

    It takes every batch norm of opset 9 to 13 for one in training, and normalises by statistics moved towards the
    batch's. By the operator's definition one that gives no statistics out is in evaluation, where `momentum` means
    nothing: it is 1 here, which moves nothing.
    """
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    told = copy.deepcopy(model)
    opset = max(entry.version for entry in told.opset_import if entry.domain in ("", "ai.onnx"))
    for node in told.graph.node:
        if node.op_type == "BatchNormalization" and len(node.output) == 1 and opset < 14:
            kept = [attribute for attribute in node.attribute if attribute.name != "momentum"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("momentum", 1.0)])
    given = {value.name: arg.detach().numpy() for value, arg in zip(_inputs(told), args, strict=True)}
    return [torch.from_numpy(np.array(out)) for out in ReferenceEvaluator(told).run(None, given)]


def _inputs(model: Any) -> list[Any]:
    """Those that are no initializers."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in known]


def outputs(result: Any) -> list[Tensor]:
    """The tensors that a module returns, in order."""
    return [result] if isinstance(result, Tensor) else list(result)


def apart(one: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    """The largest difference of an entry over the largest entry of the same tensor of the reference, over all outputs.

    Infinite where the number of outputs, a shape or a type differs, or where one side alone is not finite.

    >>> apart([torch.tensor([1.0, 2.5])], [torch.tensor([1.0, 2.0])])
    0.25
    """
    if len(one) != len(reference):
        return float("inf")
    return max((_apart(a.detach(), b.detach()) for a, b in zip(one, reference, strict=True)), default=0.0)


def _apart(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    if not torch.equal(a.isfinite(), b.isfinite()) or not torch.equal(a[~a.isfinite()], b[~b.isfinite()]):
        return float("inf")
    a, b = a.double().nan_to_num(0, 0, 0), b.double().nan_to_num(0, 0, 0)
    worst = float((a - b).abs().max()) if a.numel() else 0.0
    scale = float(b.abs().max()) if b.numel() else 0.0
    return worst / scale if scale else (0.0 if worst == 0 else float("inf"))
