"""Walks the nodes of a graph: folds what is constant, builds modules of weights, writes fx nodes for the rest."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from ..errors import OnnxImportError
from . import control, layers, operators
from .attributes import python_value
from .dtypes import to_torch, torch_dtype
from .functions import OF_SCHEMA
from .job import Job
from .leaves import Leaves
from .names import variable
from .places import within
from .refusals import INTEGERS, is_integer, refusal
from .sizes import MOST, Arithmetic, as_tensor
from .steps import Permute
from .values import Leaf, Sizes, Use, Value, constant

if TYPE_CHECKING:
    import onnx_ir as ir

_RANDOM = frozenset({"Bernoulli", "Dropout", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
_TYPES = frozenset({"to", "dtype", "output_datatype"})  # attributes that hold an element type
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


class Importer:
    """Imports one graph: the file's, or one inside of a control-flow node.

    Args:
        job: what the whole import shares.
        outer: the importer of the graph around this one.
    """

    def __init__(self, job: Job, outer: Importer | None = None) -> None:
        self.job, self.outer = job, outer
        self.root, self.graph = nn.Module(), fx.Graph()
        self.leaves = Leaves(self.root, self.graph)
        self.arithmetic = Arithmetic(self.graph)
        self.values: dict[ir.Value, Value] = {}
        self.captured: list[Value] = []  # values of outer graphs, in the order of their placeholders here
        self.arguments: set[str] = set()
        self.done: set[ir.Node] = set()  # nodes that a module has taken in

    # -- graphs ------------------------------------------------------------------------------------------------
    def run(self, graph: ir.Graph) -> list[Value]:
        """Import initializers and nodes; returns the graph's outputs."""
        for value in graph.initializers.values():
            self.values[value] = self.job.weight(value, self.tensor(value))
        for k, node in enumerate(graph):
            if self.outer is None:
                self.job.progress("importing nodes", k, len(graph))
            if node not in self.done:
                self.job.check_time()
                self._guarded(node)
        return [self.value(value) for value in graph.outputs]

    def tensor(self, value: ir.Value) -> torch.Tensor:
        """An initializer's elements."""
        if value.const_value is None:
            raise OnnxImportError(f"initializer {value.name!r} has no data", file=self.job.file)
        try:
            return to_torch(value.const_value)
        except Exception as error:
            raise OnnxImportError(f"initializer {value.name!r}: {error}", file=self.job.file) from error

    def placeholder(self, name: str) -> fx.Node:
        """One more argument of forward."""
        self.arguments.add(argument := self._unused(variable(name)))
        last = next((node for node in reversed(self.graph.nodes) if node.op == "placeholder"), self.graph._root)
        with self.graph.inserting_after(last):
            return self.graph.create_node("placeholder", argument, name=argument)

    def _unused(self, name: str) -> str:
        """This name of an argument, or it with a number behind."""
        return next(c for k in itertools.count() if (c := f"{name}_{k}" if k else name) not in self.arguments)

    def value(self, value: ir.Value) -> Value:
        """What a value of the file is here; one of an outer graph becomes an argument."""
        if value in self.values:
            return self.values[value]
        if self.outer is None:
            raise OnnxImportError(f"value {value.name!r} is used and never made", file=self.job.file)
        found = self.outer.value(value)
        if not isinstance(found, Leaf) or found.trainable:
            found = self._capture(found, value.name or "outer")
        self.values[value] = found
        return found

    def _capture(self, found: Value, name: str) -> Value:
        if not isinstance(found, Sizes):
            self.captured.append(found)
            return self.placeholder(name)
        entries = []
        for entry in found.entries:
            if isinstance(entry, fx.Node):
                self.captured.append(entry)
                entry = self.placeholder(name)
            entries.append(entry)
        return Sizes(tuple(entries), found.scalar, found.dtype, found.natural)

    # -- nodes -------------------------------------------------------------------------------------------------
    def _guarded(self, node: ir.Node) -> None:
        """Import a node; whatever goes wrong names it."""
        try:
            self._node(node)
        except OnnxImportError as error:
            if error.node is not None:
                raise
            raise self.refusal(node, error.what, error.hint) from error
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise self.refusal(node, lines[0]) from error

    def refusal(self, node: ir.Node, what: str, hint: str | None = None) -> OnnxImportError:
        """An error that names the node."""
        name = node.name or next((out.name for out in node.outputs if out.name), "") or "unnamed"
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        return OnnxImportError(what, node=name, operator=kind, file=self.job.file, hint=hint)

    def _quantised(self, node: ir.Node) -> OnnxImportError:
        """What is said of a quantised file: the option helps unless there is arithmetic that it cannot undo."""
        arithmetic = next((other for other in node.graph or () if is_integer(other.domain, other.op_type)), None)
        if arithmetic is not None:
            return self.refusal(arithmetic, *INTEGERS)
        return self.refusal(
            node, "the file is quantised", "from_onnx(..., quantized='dequantize') imports float weights instead"
        )

    def _node(self, node: ir.Node) -> None:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain == "" and node.op_type == "Constant":
            self.values[node.outputs[0]] = self._constant(node)
            return
        if domain == "" and node.op_type in control.OPERATORS:
            control.build(self, node)
            return
        row = operators.find(domain, node.op_type, self.job.version_of(node.op_type, domain))
        if row is None:
            raise self.refusal(node, *refusal(domain, node.op_type, self.job.version(domain)))
        if node.op_type in _QUANTIZED and self.job.quantized == "refuse":
            raise self._quantised(node)
        self.assign(node, self._result(node, row, self.operands(node), self.attributes(node)))

    def operands(self, node: ir.Node) -> list[Value | None]:
        """The operands, each with the weight that is its own."""
        found: list[Value | None] = []
        for i, value in enumerate(node.inputs):
            known = None if value is None else self.value(value)
            if isinstance(known, Leaf):
                known = self.job.own(known, node, i)
            found.append(known)
        while found and found[-1] is None:
            found.pop()
        return found

    def attributes(self, node: ir.Node) -> dict[str, Any]:
        """The attributes by name."""
        return {name: python_value(attribute) for name, attribute in node.attributes.items()}

    def _constant(self, node: ir.Node) -> Value:
        [(name, value)] = self.attributes(node).items()
        if name in ("value_string", "value_strings"):
            raise ValueError("strings are not supported")
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)
        if OF_SCHEMA in node.metadata_props:
            return constant(value, node.outputs[0].name or "")
        return self.job.weight(node.outputs[0], value)

    def _result(
        self, node: ir.Node, row: operators.Operator, values: list[Value | None], attributes: dict[str, Any]
    ) -> Value | Sequence[Value | None]:
        """The node's output, or its outputs."""
        op = row.name if row.domain == "" else ""
        first = values[0] if values else None
        if op == "Identity" and isinstance(first, Leaf) and first.trainable and within(node) is not None:
            return self.job.untier.copied(first, node.outputs[0], Use.of(node, 0))
        if op == "Identity" and first is not None:
            return first
        if op == "DequantizeLinear":
            restored = self._unquantised(node)
            if restored is not None:
                return restored
        if op == "Transpose" and isinstance(first, Leaf) and first.trainable:
            order = attributes.get("perm") or range(len(first.shape))[::-1]
            return first.then(Permute(tuple(order)))
        if op == "Shape" and first is not None:
            known = self._shape(node, first, attributes)
            if known is not None:
                return known
        sizes = self.arithmetic.evaluate(op, values, attributes)
        if sizes is not None:
            return self.settled(sizes, node.outputs[0].name or "")
        if all(v is None or (isinstance(v, Leaf) and not v.trainable) for v in values) and op not in _RANDOM:
            return self._folded(node, row, values, attributes)
        built = layers.build(layers.Site(self, node, op, values, attributes))
        return built if built is not None else self._called(node, row, values, attributes)

    def settled(self, sizes: Sizes, name: str) -> Value:
        """Sizes that are all known are a constant."""
        if not sizes.known:
            return sizes
        return constant(as_tensor(sizes.argument, sizes.dtype), name)  # type: ignore[arg-type]

    def _shape(self, node: ir.Node, x: Value, attributes: dict[str, Any]) -> Value | None:
        start, end = attributes.get("start", 0), attributes.get("end")
        name = node.outputs[0].name or ""
        if isinstance(x, Leaf):
            return constant(torch.tensor(x.shape[slice(start, end)], dtype=torch.int64), name)
        if isinstance(x, Sizes):
            return constant(torch.tensor([] if x.scalar else [len(x.entries)], dtype=torch.int64), name)
        shape = node.inputs[0].shape if node.inputs[0] is not None else None
        if shape is None:
            return None
        pinned = [size if self.job.pinned and isinstance(size, int) else None for size in shape]
        return self.settled(self.arithmetic.shape(x, len(shape), pinned, start, end), name)

    def rank(self, value: ir.Value | None) -> int | None:
        """Number of dimensions, as far as it could be inferred."""
        return None if value is None or value.shape is None else len(value.shape)

    # -- constants ---------------------------------------------------------------------------------------------
    def _folded(
        self, node: ir.Node, row: operators.Operator, values: list[Value | None], attributes: dict[str, Any]
    ) -> list[Value | None]:
        args = [self._literal(v, i, row) if v is not None else None for i, v in enumerate(values)]
        tensors = [arg.tensor if isinstance(arg, Leaf) else arg for arg in args]
        results = self.job.folder.run(row.function, tensors, self._keywords(node, row, attributes))
        names = [out.name or "" for out in node.outputs]
        if row.name == "DequantizeLinear":  # what was a float weight before the file was quantised is one again
            weight = self.job.weight(node.outputs[0], results[0])
            weight.weight.initializer = False
            return [weight]
        return [None if r is None else constant(r, name) for r, name in zip(results, names, strict=False)]

    def _unquantised(self, node: ir.Node) -> Value | None:
        """What was quantised just to be dequantised: the value itself, neither rounded nor saturated."""
        quantized = node.inputs[0]
        before = quantized.producer() if quantized is not None else None
        if before is None or before.op_type != "QuantizeLinear" or list(before.inputs[1:]) != list(node.inputs[1:]):
            return None
        source = before.inputs[0]
        return None if source is None else self.value(source)

    def _literal(self, value: Value, operand: int, row: operators.Operator) -> Any:
        """A constant operand as Python numbers, if the function reads it in Python."""
        scalar = operand in row.scalars and isinstance(value, Leaf | Sizes) and _is_scalar(value)
        if operand in row.literals or scalar:
            if isinstance(value, Sizes):
                return value.argument
            if isinstance(value, Leaf) and not value.trainable and value.weight.tensor.numel() <= MOST:
                if value.tensor.dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.bool):
                    return value.tensor.tolist()
        return value

    def _keywords(self, node: ir.Node, row: operators.Operator, attributes: dict[str, Any]) -> dict[str, Any]:
        """The attributes as keywords: the function's own, since their names will stand in generated code."""
        attributes = {name: value for name, value in attributes.items() if not name.startswith("__")}  # as the checker
        row.check(len(node.inputs), attributes)
        for name in _TYPES & set(attributes):
            torch_dtype(attributes[name])
        if not row.counted:
            return attributes
        used = [i for i, out in enumerate(node.outputs, 1) if out.name]
        return {**attributes, "outputs": max(used, default=1)}

    # -- fx nodes ----------------------------------------------------------------------------------------------
    def _called(
        self, node: ir.Node, row: operators.Operator, values: list[Value | None], attributes: dict[str, Any]
    ) -> Value | list[Value | None]:
        args = [None if v is None else self.argument(self._literal(v, i, row)) for i, v in enumerate(values)]
        keywords = {
            name: self.argument(constant(value, f"{node.outputs[0].name}.{name}"))
            if isinstance(value, torch.Tensor)
            else value
            for name, value in self._keywords(node, row, attributes).items()
        }
        result = self.call(row.function, args, keywords, node)
        return self.unpacked(result, node) if keywords.get("outputs", 1) > 1 else result

    def argument(self, value: Any) -> Any:
        """A value as an argument of an fx node."""
        if isinstance(value, Leaf):
            return self.leaves.node(value)
        if isinstance(value, Sizes):
            return self.graph.call_function(as_tensor, (value.argument, value.dtype))
        return value

    def call(self, target: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any], node: ir.Node) -> fx.Node:
        """Write a call, named after the file's node."""
        return self.graph.create_node("call_function", target, tuple(args), keywords, name=self._variable(node))

    def call_module(self, path: str, args: Sequence[Any], node: ir.Node) -> fx.Node:
        """Write a call of a module."""
        return self.graph.create_node("call_module", path, tuple(args), name=self._variable(node))

    def _variable(self, node: ir.Node) -> str:
        return variable((node.name or node.outputs[0].name or node.op_type).lstrip("/").replace("/", "_"))

    def unpacked(self, result: fx.Node, node: ir.Node) -> list[Value | None]:
        """The outputs in use, each a node of its own."""
        return [
            self.graph.call_function(operator.getitem, (result, i)) if out.name else None
            for i, out in enumerate(node.outputs)
        ]

    def assign(self, node: ir.Node, result: Value | Sequence[Value | None]) -> None:
        """Note what the node's outputs are."""
        results: Sequence[Value | None] = result if isinstance(result, list | tuple) else [result]  # type: ignore[list-item]
        for out, value in zip(node.outputs, results, strict=False):
            if value is not None and out.name:
                self.values[out] = value


def _is_scalar(value: Leaf | Sizes) -> bool:
    return value.scalar if isinstance(value, Sizes) else value.tensor.dim() == 0
