"""The data of tensors: as much as their shapes say, and what lies in other files only inside of the file's folder.

Loaders check paths as well, but not all of lengths and offsets, and not alike in every version; a tensor without data
they take for zeros, however large its shape is. This runs first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OnnxImportError
from .limits import Limits

if TYPE_CHECKING:
    import onnx


def check_data(model: onnx.ModelProto, folder: Path | None, limits: Limits, file: str) -> None:
    """Look at every tensor of the model.

    Args:
        model: the model as parsed, nothing loaded.
        folder: folder of the file; None if the model came as bytes or as an object.
        limits: how much may be read.
        file: the file's name, for errors.

    Raises:
        OnnxImportError: a tensor has a negative size, or less or more data than its shape says; there is no folder for
            one that lies in another file; a path leaves it, or is a link out of it; a file is missing or shorter than
            the offset and length say; all of it is more than ``limits.external_bytes``.
    """
    from onnx import TensorProto

    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            _check_inside(tensor, file)
            continue
        if folder is None:
            raise OnnxImportError(
                f"tensor {tensor.name!r} lies in another file, and a model without a path has no folder to look in",
                file=file,
                hint="give the path of the .onnx file",
            )
        total += _length(tensor, folder, file)
        if total > limits.external_bytes:
            raise OnnxImportError(
                f"the external data are more than {limits.external_bytes:,} bytes",
                file=file,
                hint="limits=pcgraph.onnx.Limits(external_bytes=...)",
            )


def _check_inside(tensor: onnx.TensorProto, file: str) -> None:
    """Data in the model itself. In the fields by type, at most four elements share an entry."""
    if any(size < 0 for size in tensor.dims):
        raise OnnxImportError(f"tensor {tensor.name!r} has a negative size: {list(tensor.dims)}", file=file)
    if tensor.HasField("raw_data"):
        short = len(tensor.raw_data) != _size(tensor)
    else:
        fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
        short = math.prod(tensor.dims) > 4 * sum(len(getattr(tensor, field)) for field in fields)
    if short:
        raise OnnxImportError(f"tensor {tensor.name!r} has not the data for the shape {list(tensor.dims)}", file=file)


def _length(tensor: onnx.TensorProto, folder: Path, file: str) -> int:
    """Bytes of one external tensor, after all checks."""

    def refuse(what: str) -> OnnxImportError:
        return OnnxImportError(f"external data of tensor {tensor.name!r}: {what}", file=file)

    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    # onnx itself forbids absolute paths and `..`; links are followed here, and must end inside of the folder.
    if not location or os.path.isabs(location) or ".." in Path(location).parts:
        raise refuse(f"the location {location!r} is not inside of the file's folder")
    try:
        path = (folder / location).resolve(strict=True)
        base = folder.resolve(strict=True)
    except OSError as error:
        raise refuse(f"{location!r} cannot be opened ({error.strerror})") from error
    except ValueError as error:  # a zero byte in the name
        raise refuse(f"the location {location!r} is not a file name") from error
    if base not in path.parents or not path.is_file():
        raise refuse(f"the location {location!r} is not a file inside of the file's folder")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else _size(tensor)
    except ValueError as error:
        raise refuse("offset or length is not a number") from error
    size = path.stat().st_size
    if offset < 0 or length < 0 or offset + length > size:
        raise refuse(f"bytes {offset} to {offset + length} of {location!r}, which has {size}")
    if length != _size(tensor):
        raise refuse(f"{length} bytes for a tensor of {_size(tensor)}")
    return length


def _size(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's shape and type need."""
    from onnx import helper

    count = 1
    for size in tensor.dims:
        count *= max(size, 0)
    try:
        width: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:
        raise OnnxImportError(f"tensor {tensor.name!r} has an unknown type {tensor.data_type}") from None
    packed = {"UINT4": 2, "INT4": 2, "FLOAT4E2M1": 2, "UINT2": 4, "INT2": 4}.get(_type_name(tensor), 1)
    return -(-count * width // packed)


def _type_name(tensor: onnx.TensorProto) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(tensor.data_type))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor: initializers and attributes, in graphs and functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)
