"""Local functions, whose calls are counted before they are inlined, and operators that the schema defines by others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import OnnxImportError
from .limits import Limits

if TYPE_CHECKING:
    import onnx_ir as ir

_CONTROL = ("If", "Loop", "Scan", "Constant")
_PREFIX = "pcgraph.schema"  # domain of the functions made here; no file gets to see it


def nodes_of(graph: Iterable[ir.Node], depth: int = 0) -> Iterator[tuple[ir.Node, int]]:
    """All nodes of a graph and of the graphs inside of it, with their depth."""
    import onnx_ir as ir

    for node in graph:
        yield node, depth
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH and not attribute.is_ref():
                yield from nodes_of(attribute.as_graph(), depth + 1)
            elif attribute.type is ir.AttributeType.GRAPHS and not attribute.is_ref():
                for inner in attribute.as_graphs():
                    yield from nodes_of(inner, depth + 1)


def count_nodes(model: ir.Model, limits: Limits, file: str) -> None:
    """Refuse what inlining would blow up.

    Raises:
        OnnxImportError: a function calls itself, or the nodes or the nesting exceed the limits.
    """
    counted: dict[Any, int] = {}

    def count(graph: Iterable[ir.Node], calling: tuple[Any, ...]) -> int:
        total = 0
        for node, depth in nodes_of(graph):
            called = node.op_identifier()
            if called in model.functions:
                if called in calling:
                    raise OnnxImportError(f"function {called[1]!r} calls itself", file=file)
                if called not in counted:
                    counted[called] = count(model.functions[called], (*calling, called))
                total += counted[called]
            total += 1
            if depth + len(calling) > limits.nesting:
                raise OnnxImportError(
                    f"graphs and functions are nested more than {limits.nesting} deep",
                    file=file,
                    hint="limits=pcgraph.onnx.Limits(nesting=...)",
                )
        return total

    check_count(count(model.graph, ()), limits, file)


OF_SCHEMA = "pcgraph.schema"  # marks constants of a schema's body: they are in no file, and nobody's weights


def check_count(total: int, limits: Limits, file: str) -> None:
    """Refuse a model of too many nodes."""
    if total > limits.nodes:
        raise OnnxImportError(
            f"the model has {total:,} nodes with its functions inlined, more than {limits.nodes:,}",
            file=file,
            hint="limits=pcgraph.onnx.Limits(nodes=...)",
        )


def expand_schema_functions(model: ir.Model, known: Callable[..., bool], limits: Limits, file: str) -> bool:
    """Replace operators that the importer does not compute, and that ONNX defines by simpler ones, by those.

    Returns:
        Whether there were any.

    Raises:
        OnnxImportError: the result has too many nodes.
    """
    from onnx_ir.passes import common

    version = model.opset_imports.get("", 1)
    found = 0
    for node, _ in nodes_of(model.graph):
        if node.domain not in ("", "ai.onnx") or node.op_type in _CONTROL or known("", node.op_type, version):
            continue
        function = _schema_function(node, version)
        if function is None:
            continue
        # A function of its own per node: bodies may depend on the attributes and types of the call.
        function.domain, function.name = f"{_PREFIX}{found}", node.op_type
        node.domain, node.overload = function.domain, ""
        node.version = None
        model.functions[function.identifier()] = function
        model.opset_imports[function.domain] = 1
        found += 1
    if not found:
        return False
    count_nodes(model, limits, file)
    for function in model.functions.values():  # bodies are written for the opset they were asked for
        function.opset_imports.update({"": version})
    common.InlinePass()(model)
    common.RemoveUnusedNodesPass()(model)
    for i in range(found):
        model.opset_imports.pop(f"{_PREFIX}{i}", None)
    return True


def _schema_function(node: ir.Node, version: int) -> ir.Function | None:
    """The body that ONNX defines for this call."""
    import onnx
    import onnx_ir as ir

    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, "")  # its stubs lack the functions
    except onnx.defs.SchemaError:
        return None
    proto = onnx.FunctionProto()
    if schema.has_function:
        fitting = [v for v in schema.function_opset_versions if v <= version]
        if not fitting:
            return None
        proto.ParseFromString(schema.get_function_with_opset_version(max(fitting)))
    elif schema.has_context_dependent_function:
        fitting = [v for v in schema.context_dependent_function_opset_versions if v <= version]
        types = [_type_of(value) for value in node.inputs]
        if not fitting:
            return None
        body = schema.get_context_dependent_function_with_opset_version(
            max(fitting), ir.serde.serialize_node(node).SerializeToString(), types
        )
        proto.ParseFromString(body)
    else:
        return None
    _fill_defaults(proto, schema, node)
    _align_outputs(proto, len(node.outputs))
    for inner in proto.node:
        if inner.op_type == "Constant":
            inner.metadata_props.add(key=OF_SCHEMA, value="")
    return ir.serde.deserialize_function(proto)


def _fill_defaults(proto: Any, schema: Any, node: ir.Node) -> None:
    """Defaults of the schema, for attributes that the body refers to and the call leaves out."""
    referred = {a.ref_attr_name for n in proto.node for a in n.attribute if a.ref_attr_name}
    declared = {a.name for a in proto.attribute_proto}
    for name in referred - declared - set(node.attributes):
        default = schema.attributes[name].default_value if name in schema.attributes else None
        if default is not None and default.type:
            proto.attribute_proto.add().CopyFrom(default)
            if name in proto.attribute:
                proto.attribute.remove(name)


def _align_outputs(proto: Any, count: int) -> None:
    """As many outputs as the call has; one that the body does not make, since the call leaves it out, is a constant."""
    del proto.output[count:]
    made = {out for node in proto.node for out in node.output} | set(proto.input)
    for name in proto.output:
        if name not in made:
            node = proto.node.add(op_type="Constant", output=[name])
            node.attribute.add(name="value_int", i=0, type=2)


def _type_of(value: ir.Value | None) -> bytes:
    """A value's type as the schema wants it; empty if it is left out or unknown."""
    import onnx
    import onnx_ir as ir

    if value is None or value.dtype is None:
        return onnx.TypeProto().SerializeToString()
    proto = onnx.TypeProto()
    proto.tensor_type.elem_type = int(value.dtype)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto.SerializeToString()
