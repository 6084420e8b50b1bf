"""From a path, bytes or a `ModelProto` to a checked model that the importer can walk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import OnnxImportError
from . import places
from .data import check_data
from .dtypes import TORCH
from .functions import count_nodes, expand_schema_functions, nodes_of
from .limits import Limits
from .progress import Progress

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

_SMALL = 4096  # bytes
OLDEST = 7  # below, operators broadcast by an attribute, among other things: onnx's converter rewrites such files


class Loaded(NamedTuple):
    """A checked model, inlined, sorted and with the shapes that inference could find.

    Attributes:
        model: what the importer walks.
        file: the file's path, or what stands for it in messages.
        path: the file's path, if it has one.
        opset: the file's version of ``ai.onnx``; below `OLDEST` it was converted, and nodes are not those of the file.
    """

    model: ir.Model
    file: str
    path: Path | None
    opset: int


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what `onnx_ir` logs of files: what is wrong is raised."""
    logger = logging.getLogger("onnx_ir")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@_quiet()
def load(
    source: Any,
    limits: Limits,
    input_shapes: Mapping[str, Sequence[int | None]] | None,
    known: Callable[..., bool],
    progress: Progress,
) -> Loaded:
    """Load and check a model.

    Args:
        source: path, bytes, or `onnx.ModelProto`.
        limits: what it may cost.
        input_shapes: sizes that the inputs are promised to have, None where one stays open.
        known: whether the importer computes an operator itself, by domain, name and version; others are expanded.
        progress: is told of every stage.

    Raises:
        OnnxImportError: the file cannot be read, is not a valid model, needs a newer `onnx`, or exceeds a limit.
    """
    progress("reading")
    proto, file, path = _read(source)
    folder = None if path is None else path.parent
    check_data(proto, folder, limits, file)
    _refuse_unreadable(proto, file)
    opset = _opset(proto)
    if 0 < opset < OLDEST:
        proto = _converted(proto, file)
    import onnx_ir as ir
    from onnx_ir import external_data
    from onnx_ir.passes import common

    with blaming(file, "the model cannot be read"):
        model = ir.serde.deserialize_model(proto)
        _take_over(model)
        places.mark(model.graph)
        del proto  # one file's worth of memory
        if folder is not None:
            external_data.set_base_dir(model.graph, folder)
            _load_small(model)
    progress("checking")
    count_nodes(model, limits, file)
    with blaming(file, "local functions cannot be inlined"):
        common.InlinePass()(model)
    with blaming(file, "the graph has a cycle"):
        common.TopologicalSortPass()(model)
    _check(model, file)
    _forget_shapes(model)
    if input_shapes:
        _pin(model, input_shapes, file)
    progress("inferring shapes")
    _infer_shapes(model)
    for _ in range(limits.nesting):  # a function of the schema may use another one
        if not expand_schema_functions(model, known, limits, file):
            break
        _infer_shapes(model)
    with blaming(file, "unused nodes cannot be removed"):
        common.RemoveUnusedNodesPass()(model)
    return Loaded(model, file, path, opset)


def _read(source: Any) -> tuple[onnx.ModelProto, str, Path | None]:
    import onnx

    if isinstance(source, onnx.ModelProto):
        return source, f"model {source.graph.name!r}", None
    if isinstance(source, bytes | bytearray | memoryview):
        with blaming("the bytes given", "they are not an ONNX model"):
            return onnx.load_model_from_string(bytes(source)), "the bytes given", None
    if not isinstance(source, str | os.PathLike):
        raise OnnxImportError(
            f"an object of type {type(source).__name__} is no source of a model",
            hint="give a path, the bytes of a file, or an onnx.ModelProto",
        )
    path = Path(source)
    if not path.is_file():
        raise OnnxImportError("there is no such file", file=str(path))
    with blaming(str(path), "it is not an ONNX model"):
        return onnx.load(path, format="protobuf", load_external_data=False), str(path), path


def _opset(proto: onnx.ModelProto) -> int:
    return max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _refuse_unreadable(proto: onnx.ModelProto, file: str) -> None:
    """What no later check would name."""
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if _opset(proto) > newest:
        raise OnnxImportError(
            f"opset {_opset(proto)} is newer than {newest}, the newest that onnx {onnx.__version__} knows",
            file=file,
            hint="pip install --upgrade onnx",
        )
    if not proto.graph.output:
        raise OnnxImportError("the graph has no outputs", file=file)
    if proto.graph.sparse_initializer:
        raise OnnxImportError(
            f"sparse initializer {proto.graph.sparse_initializer[0].values.name!r} is not supported", file=file
        )


def _converted(proto: onnx.ModelProto, file: str) -> onnx.ModelProto:
    """The model with the operators of the oldest opset that the table knows."""
    import onnx
    from onnx import version_converter

    with blaming(file, f"opset {_opset(proto)} cannot be converted to a newer one"):
        onnx.checker.check_model(proto)
        return version_converter.convert_version(proto, 13)


def _take_over(model: ir.Model) -> None:
    """Hold tensors as arrays. As protobufs they would be copied at every look, and all stay while one of them does."""
    import onnx_ir as ir

    for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.serde.TensorProtoTensor):
                value.const_value = _array(value.const_value)
        for node, _ in nodes_of(graph):
            for name, attribute in list(node.attributes.items()):
                if attribute.type is ir.AttributeType.TENSOR and isinstance(
                    attribute.value, ir.serde.TensorProtoTensor
                ):
                    node.attributes[name] = ir.AttrTensor(name, _array(attribute.value))


def _array(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """The same tensor around an array; itself if torch has no such type, or if it is broken, which the checker says."""
    import onnx_ir as ir

    if int(tensor.dtype) not in TORCH:
        return tensor
    try:
        return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    except Exception:
        return tensor


def _load_small(model: ir.Model) -> None:
    """Read external data that onnx's checker would look for in its own way: all but large tensors of the main graph."""
    import onnx_ir as ir

    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and (graph is not model.graph or tensor.nbytes <= _SMALL):
                value.const_value = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def _check(model: ir.Model, file: str) -> None:
    from onnx_ir.passes import common

    with blaming(file, "the model is not valid"):
        common.CheckerPass()(model)


def _forget_shapes(model: ir.Model) -> None:
    """What the file says of values inside of it is not checked by anyone: it is inferred again.

    Some exporters write -1 for a size of an input that is open.
    """
    import onnx_ir as ir

    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([None if isinstance(size, int) and size < 0 else size for size in value.shape])
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                value.shape = None


def _infer_shapes(model: ir.Model) -> None:
    """Ranks and sizes, as far as they follow. Values are not propagated: a hostile file could make them huge."""
    from onnx_ir.passes import common

    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)


def _pin(model: ir.Model, shapes: Mapping[str, Sequence[int | None]], file: str) -> None:
    import onnx_ir as ir

    inputs = {value.name: value for value in model.graph.inputs}
    for name, sizes in shapes.items():
        if name not in inputs:
            raise OnnxImportError(
                f"input_shapes names {name!r}, which is no input",
                file=file,
                hint=f"inputs: {', '.join(map(str, inputs))}",
            )
        old = inputs[name].shape
        if old is not None and len(old) != len(sizes):
            raise OnnxImportError(f"input_shapes gives {name!r} {len(sizes)} sizes, it has {len(old)}", file=file)
        inputs[name].shape = ir.Shape(
            [size if size is not None else None if old is None else old[i] for i, size in enumerate(sizes)]
        )


@contextmanager
def blaming(file: str, what: str) -> Iterator[None]:
    """Turn whatever a library raises into one error that names the file."""
    try:
        yield
    except OnnxImportError:
        raise
    except RecursionError as error:
        raise OnnxImportError(f"{what}: it is nested too deeply", file=file) from error
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = [line for line in str(cause).strip().splitlines() if line.strip()] or [type(cause).__name__]
        raise OnnxImportError(f"{what}: {lines[0]}", file=file) from error
