"""The test cases that onnx ships, as far as they concern networks that learn: plain floats, no random numbers."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.backend.test import loader

from pcgraph.onnx.dtypes import TORCH

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
RANDOM = {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")


@dataclass(frozen=True)
class OnnxCase:
    """A model with data.

    Attributes:
        name: of the case.
        kind: one of `KINDS`.
        model: the model.
        sets: inputs and expected outputs, one pair or more.
        rtol, atol: tolerances that onnx gives the case.
    """

    name: str
    kind: str
    model: onnx.ModelProto
    sets: tuple[tuple[list[torch.Tensor], list[torch.Tensor]], ...]
    rtol: float
    atol: float

    @property
    def operator(self) -> str:
        """The operator of a node case."""
        return self.model.graph.node[0].op_type


def node_cases() -> list[OnnxCase]:
    """The node cases in scope."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = loader.load_model_tests(kind="node")
    return [case_of(test) for test in found if in_scope(test.model, test.name)]


def file_cases(kind: str) -> list[OnnxCase]:
    """The cases of a kind that lie in files, all that have plain tensors."""
    found = []
    for test in sorted(loader.load_model_tests(kind=kind), key=lambda test: test.name):
        if test.model_dir is None:
            continue
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        if all(_plain(value) for value in (*model.graph.input, *model.graph.output)):
            found.append(_case(test, model, list(_read(folder, model))))
    return found


def in_scope(model: onnx.ModelProto, name: str) -> bool:
    """Whether a case is about plain tensors, has a float among inputs and outputs, and is deterministic."""
    graph = model.graph
    if not all(_plain(value) for value in (*graph.input, *graph.output)):
        return False
    if any(node.domain not in ("", "ai.onnx") for node in graph.node):
        return False
    if any(node.op_type in RANDOM for node in graph.node) or "bernoulli" in name:
        return False
    if "training_dropout" in name and "zero_ratio" not in name:
        return False
    return any(_type(value) in FLOATS for value in graph.input) and any(_type(v) in FLOATS for v in graph.output)


def with_parameters(case: OnnxCase) -> OnnxCase:
    """The same with its float inputs as initializers."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    inputs, outputs = case.sets[0]
    rest = []
    for value, tensor in zip(list(model.graph.input), inputs, strict=True):
        if _type(value) in FLOATS:
            model.graph.initializer.append(_initializer(value.name, tensor))
            model.graph.input.remove(value)
        else:
            rest.append(tensor)
    return OnnxCase(case.name, case.kind, model, ((rest, outputs),), case.rtol, case.atol)


def _initializer(name: str, tensor: torch.Tensor) -> TensorProto:
    if tensor.dtype is not torch.bfloat16:
        return numpy_helper.from_array(tensor.numpy(), name)
    raw = tensor.contiguous().view(torch.int16).numpy().tobytes()
    return TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=tensor.shape, raw_data=raw)


def _type(value: onnx.ValueInfoProto) -> int:
    return value.type.tensor_type.elem_type


def _plain(value: onnx.ValueInfoProto) -> bool:
    return value.type.WhichOneof("value") == "tensor_type" and _type(value) in TORCH


def case_of(test: Any) -> OnnxCase:
    """A node case of onnx as one of ours."""
    return _case(test, test.model, test.data_sets)


def _case(test: Any, model: onnx.ModelProto, sets: list[tuple[list[np.ndarray], list[np.ndarray]]]) -> OnnxCase:
    tensors = tuple(([_tensor(a) for a in inputs], [_tensor(a) for a in outputs]) for inputs, outputs in sets)
    return OnnxCase(test.name, test.kind, model, tensors, test.rtol, test.atol)


def _tensor(array: np.ndarray | TensorProto) -> torch.Tensor:
    if isinstance(array, TensorProto):
        array = numpy_helper.to_array(array)
    array = np.array(array, copy=True, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _read(folder: Path, model: onnx.ModelProto) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    for data in sorted(folder.glob("test_data_set_*")):
        parts = []
        for kind in ("input", "output"):
            tensors = []
            for k in range(len(list(data.glob(f"{kind}_*.pb")))):
                tensors.append(TensorProto.FromString((data / f"{kind}_{k}.pb").read_bytes()))
            parts.append([numpy_helper.to_array(tensor) for tensor in tensors])
        yield parts[0], parts[1]
