"""Back into the file: trained weights in the places that they came from, everything else as it was."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import OnnxExportError
from .leaves import Origin
from .module import Provenance
from .steps import write_back

if TYPE_CHECKING:
    import onnx

_LARGEST = 2**31 - 2**20  # bytes that protobuf can write into one file


def export(model: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """See `pcgraph.to_onnx`."""
    provenance = getattr(model, "provenance", None)
    if not isinstance(provenance, Provenance):
        raise OnnxExportError(
            f"{type(model).__name__} does not come from an ONNX file",
            hint="pcgraph.to_onnx writes models of pcgraph.from_onnx back; for others there is torch.onnx.export",
        )
    if provenance.converted:
        raise OnnxExportError(
            f"{provenance.file} was converted to a newer opset when it was imported",
            hint="convert the file with onnx.version_converter first, and import the result",
        )
    proto = _original(provenance)
    tensors = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    _refuse_unknown(model, provenance)
    file = _File(proto, provenance.file)
    for name, origin in provenance.origins.items():
        file.write(name, tensors[name], origin)
    file.save(Path(path))


def _original(provenance: Provenance) -> onnx.ModelProto:
    """The file again, with its external data."""
    import onnx

    if isinstance(provenance.source, bytes | bytearray | memoryview):
        return onnx.load_model_from_string(bytes(provenance.source))
    if isinstance(provenance.source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(provenance.source)
        return copy
    try:
        return onnx.load(provenance.source)
    except FileNotFoundError as error:
        raise OnnxExportError(
            f"{provenance.file} is not there any more", hint="weights are written into a copy of the file: put it back"
        ) from error


def _refuse_unknown(model: torch.nn.Module, provenance: Provenance) -> None:
    """A parameter without a place in the file would be lost."""
    shared = {parameter for name, parameter in model.named_parameters() if name in provenance.origins}
    for name, parameter in model.named_parameters():
        if parameter not in shared and parameter.requires_grad:
            raise OnnxExportError(
                f"parameter {name!r} has no tensor in {provenance.file}",
                hint="it was computed from several tensors at import (a quantised weight), or added later; freeze it",
            )


class _File:
    """A model whose tensors are replaced."""

    def __init__(self, proto: onnx.ModelProto, file: str) -> None:
        self.proto, self.file = proto, file
        self.tensors: dict[str, onnx.TensorProto] = {}
        self.nodes: dict[str, onnx.NodeProto] = {}  # by each output
        self.names: set[str] = set()
        for graph in _graphs(proto.graph):
            for tensor in graph.initializer:
                self.tensors.setdefault(tensor.name, tensor)
            for node in graph.node:
                self.nodes.update(dict.fromkeys(node.output, node))
                self.names.update(node.input, node.output)
                if node.op_type == "Constant":
                    self.tensors.update(_constant(node))
        self.names |= set(self.tensors)

    def write(self, name: str, tensor: torch.Tensor, origin: Origin) -> None:
        """Put a parameter back, into its initializer or into a copy for its use."""
        proto = self.tensors.get(origin.initializer)
        if proto is None:
            raise OnnxExportError(
                f"parameter {name!r} was the tensor {origin.initializer!r}, which is in no graph of {self.file}",
                hint="it lies in a local function: inline functions with onnx.inliner first, and import the result",
            )
        values = _read(proto)
        before = values.clone()
        write_back(origin.steps, tensor.detach().cpu(), values)
        if torch.equal(before, values):
            return
        if origin.use is not None:
            proto = self._copy(proto, origin, name)
        _fill(proto, values)

    def _copy(self, proto: onnx.TensorProto, origin: Origin, name: str) -> onnx.TensorProto:
        """A new initializer, read by the one operand that it is for."""
        assert origin.use is not None
        node = self.nodes.get(origin.use.output)
        if node is None or node.input[origin.use.operand] != origin.initializer:
            raise OnnxExportError(
                f"parameter {name!r} was copied for a node that {self.file} has in a local function",
                hint="inline functions with onnx.inliner first, or import with untie='none'",
            )
        unused = next(c for k in range(1, len(self.names) + 2) if (c := f"{origin.initializer}_{k}") not in self.names)
        self.names.add(unused)
        node.input[origin.use.operand] = unused
        copy = self.proto.graph.initializer.add(name=unused, data_type=proto.data_type, dims=proto.dims)
        return copy

    def save(self, path: Path) -> None:
        """Write the file, which may be the one that it came from; what is too large for one goes beside it."""
        import onnx

        if path.is_dir() or not path.parent.is_dir():
            raise OnnxExportError(f"{path} cannot be written", hint="name a file in a folder that exists")
        if self.proto.ByteSize() >= _LARGEST:
            onnx.save(self.proto, path, save_as_external_data=True, location=f"{path.name}.data")
            return
        written = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            onnx.save(self.proto, written)
            os.replace(written, path)
        finally:
            written.unlink(missing_ok=True)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside of it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner: Iterable[Any] = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            for one in inner:
                yield from _graphs(one)


def _constant(node: onnx.NodeProto) -> dict[str, onnx.TensorProto]:
    """A Constant node's tensor under the name of its output; numbers and lists become tensors."""
    import numpy as np
    from onnx import helper, numpy_helper

    [attribute] = node.attribute
    if attribute.name in ("value_float", "value_floats"):
        array = np.array(helper.get_attribute_value(attribute), dtype=np.float32)
        attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))
    return {node.output[0]: attribute.t} if attribute.name == "value" else {}


def _read(proto: onnx.TensorProto) -> torch.Tensor:
    """A float tensor of the file, as one of our own."""
    from onnx import TensorProto, numpy_helper

    array = numpy_helper.to_array(proto)
    if proto.data_type == TensorProto.BFLOAT16:
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _fill(proto: onnx.TensorProto, values: torch.Tensor) -> None:
    """Replace a tensor's elements, whichever field they were in."""
    for field in ("float_data", "double_data", "int32_data", "external_data"):
        proto.ClearField(field)
    proto.ClearField("data_location")
    kind = torch.int16 if values.dtype is torch.bfloat16 else values.dtype
    proto.raw_data = values.contiguous().view(kind).numpy().tobytes()
