"""`from_onnx`: the stages of an import, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import OnnxImportError
from . import operators
from .control import OPERATORS
from .dtypes import TORCH
from .importer import Importer
from .job import Job, Quantized
from .limits import Limits
from .load import OLDEST, Loaded, load
from .module import Input, OnnxModule, Provenance
from .progress import Progress
from .refusals import OPTIONALS, SEQUENCES, STRINGS, Refusal
from .roles import Trainable, unreached
from .untie import Untie, Untier

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor, fx


def convert(
    source: Any,
    trainable: Trainable,
    untie: Untie,
    quantized: Quantized,
    input_shapes: Mapping[str, Sequence[int | None]] | None,
    limits: Limits,
    progress: Callable[[str, int, int], None] | None,
) -> OnnxModule:
    """See `pcgraph.from_onnx`."""
    report = Progress(progress)
    loaded = load(source, limits, input_shapes, _known, report)
    opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in loaded.model.opset_imports.items()}
    job = Job(
        loaded.file,
        opsets,
        limits,
        trainable,
        Untier(untie),
        quantized,
        loaded.opset,
        pinned=bool(input_shapes),
        unreached=unreached(loaded.model.graph),
        progress=report,
    )
    importer = Importer(job)
    graph = loaded.model.graph
    inputs = []
    for value in graph.inputs:
        if value.name not in graph.initializers:  # old files list their initializers among the inputs
            inputs.append(_input(value, loaded.file))
            importer.values[value] = _argument(importer, inputs[-1])
    outputs = [importer.argument(value) for value in importer.run(graph)]
    importer.graph.output(tuple(outputs) if len(outputs) > 1 else outputs[0])
    return _finished(importer, loaded, source, tuple(inputs))


def _argument(importer: Importer, known: Input) -> fx.Node:
    """An argument of forward; if its sizes are relied on, they are checked at every call."""
    argument = importer.placeholder(known.name or "input")
    if not importer.job.pinned or known.shape is None or all(size is None for size in known.shape):
        return argument
    return importer.graph.call_function(of_shape, (argument, list(known.shape)))


def of_shape(x: Tensor, sizes: Sequence[int | None]) -> Tensor:
    """``x``, which must have these sizes: constants were computed from them."""
    if x.dim() != len(sizes) or any(size not in (None, known) for size, known in zip(sizes, x.shape, strict=True)):
        raise ValueError(f"an input has the shape {list(x.shape)}, and was imported with input_shapes {list(sizes)}")
    return x


def _known(domain: str, name: str, version: int) -> bool:
    return name in OPERATORS or operators.find(domain, name, version) is not None


def _input(value: ir.Value, file: str) -> Input:
    import onnx_ir as ir

    kinds: dict[Any, Refusal] = {ir.SequenceType: SEQUENCES, ir.OptionalType: OPTIONALS}
    refused = STRINGS if value.dtype is ir.DataType.STRING else kinds.get(type(value.type))
    if refused is not None:
        raise OnnxImportError(f"input {value.name!r}: {refused.what}", file=file, hint=refused.hint)
    if not isinstance(value.type, ir.TensorType) or int(value.type.dtype) not in TORCH:
        raise OnnxImportError(f"input {value.name!r} is of type {value.type}, which torch has no tensors of", file=file)
    shape = None if value.shape is None else tuple(s if isinstance(s, int) else None for s in value.shape)
    return Input(value.name or "", TORCH[int(value.type.dtype)], shape)


def _finished(importer: Importer, loaded: Loaded, source: Any, inputs: tuple[Input, ...]) -> OnnxModule:
    """The module over the finished graph, in evaluation mode, without what nothing uses."""
    graph: fx.Graph = importer.graph
    _drop_unused(graph)
    graph.lint()
    module = OnnxModule(importer.root, graph, "OnnxModule")
    origin = loaded.path.resolve() if loaded.path is not None else source
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    origins = {name: known for name, known in importer.leaves.origins.items() if name in tensors}
    names = tuple(value.name or "" for value in loaded.model.graph.outputs)
    module.provenance = Provenance(loaded.file, origin, inputs, names, origins, loaded.opset < OLDEST)
    return module.eval()


def _drop_unused(graph: fx.Graph) -> None:
    """Without nodes that nobody reads; a module takes over only the parameters and modules of those that are left."""
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
