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
from .places import Within
from .steps import run, write_back
from .values import Use

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
    # Copies last: each is written if it differs from what the initializer is in the end.
    for name, origin in sorted(provenance.origins.items(), key=lambda entry: entry[1].use is not None):
        file.write(name, tensors[name], origin)
    for name, origin in provenance.origins.items():
        file.check(name, tensors[name], origin)
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
        self.tensors: dict[tuple[Within | None, str], onnx.TensorProto] = {}
        self.nodes: dict[tuple[Within | None, str], onnx.NodeProto] = {}  # by each output
        self.copies: dict[Use, onnx.TensorProto] = {}
        self.names: set[str] = set()
        for within, graph in _graphs(proto.graph):
            self.names.update(value.name for value in (*graph.input, *graph.output))
            for tensor in graph.initializer:
                self.tensors[within, tensor.name] = tensor
            for node in graph.node:
                self.nodes.update({(within, output): node for output in node.output})
                self.names.update(node.input, node.output)
                if node.op_type == "Constant":
                    self.tensors.update({(within, name): tensor for name, tensor in _constant(node).items()})
        self.names.update(name for _, name in self.tensors)
        # Before any operand is replaced.
        self.sources = {key: node.input[0] for key, node in self.nodes.items() if node.op_type == "Identity"}

    def write(self, name: str, tensor: torch.Tensor, origin: Origin) -> None:
        """Put a parameter back, into its initializer or into a copy for its use."""
        proto = self._found(name, origin)
        values = _read(proto)
        before = values.clone()
        write_back(origin.steps, tensor.detach().cpu(), values)
        if torch.equal(before, values):
            return
        if origin.use is not None and origin.use not in self.copies:
            proto = self.copies[origin.use] = self._copy(proto, origin, name)
        _fill(proto, values)

    def check(self, name: str, tensor: torch.Tensor, origin: Origin) -> None:
        """Whether the file holds the parameter, now that all are written."""
        held = run(origin.steps, _read(self._found(name, origin)))
        if not torch.equal(held.nan_to_num(), tensor.detach().cpu().reshape(held.shape).to(held).nan_to_num()):
            raise OnnxExportError(
                f"parameter {name!r} and another one that differs are both the tensor {origin.initializer!r} "
                f"of {self.file}",
                hint="import with untie='none', so that they stay one parameter",
            )

    def _found(self, name: str, origin: Origin) -> onnx.TensorProto:
        """What the parameter is written to: the initializer, or what was copied of it."""
        if origin.use in self.copies:
            return self.copies[origin.use]
        proto = self.tensors.get((origin.within, origin.initializer))
        if proto is None:
            raise OnnxExportError(
                f"parameter {name!r} was the tensor {origin.initializer!r}, which is in no graph of {self.file}",
                hint="it lies in a local function: inline functions with onnx.inliner first, and import the result",
            )
        return proto

    def _copy(self, proto: onnx.TensorProto, origin: Origin, name: str) -> onnx.TensorProto:
        """A new initializer, read by the one operand that it is for."""
        assert origin.use is not None
        node = self.nodes.get((origin.use.within, origin.use.output))
        if node is None or self._source(origin.use.within, node.input[origin.use.operand]) != origin.initializer:
            raise OnnxExportError(
                f"parameter {name!r} was copied for a node that {self.file} has in a local function",
                hint="inline functions with onnx.inliner first, or import with untie='none'",
            )
        unused = next(c for k in range(1, len(self.names) + 2) if (c := f"{origin.initializer}_{k}") not in self.names)
        self.names.add(unused)
        node.input[origin.use.operand] = unused
        copy = self.proto.graph.initializer.add(name=unused, data_type=proto.data_type, dims=proto.dims)
        return copy

    def _source(self, within: Within | None, name: str) -> str:
        """What a name of a graph is an Identity of, there or in the graphs around it."""
        for k in range(len(within or ()), -1, -1):
            source = self.sources.get(((within or ())[:k], name))
            if source is not None:
                return self._source((within or ())[:k], source)
        return name

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


def _graphs(graph: onnx.GraphProto, within: Within = ()) -> Iterator[tuple[Within, onnx.GraphProto]]:
    """A graph and those inside of it, and where they lie."""
    yield within, graph
    for node in graph.node:
        for attribute in node.attribute:
            inner: Iterable[Any] = [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
            for k, one in enumerate(inner):
                yield from _graphs(one, (*within, (node.output[0] if node.output else "", attribute.name, k)))


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
