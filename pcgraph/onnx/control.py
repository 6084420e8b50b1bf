"""If, Loop and Scan: modules that hold the inner graphs and run them as Python would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import OnnxImportError
from .module import OnnxModule
from .names import module_path
from .refusals import SCAN_8
from .values import Leaf, Sizes, Value, constant

if TYPE_CHECKING:
    import onnx_ir as ir

    from .importer import Importer

OPERATORS = ("If", "Loop", "Scan")
Results = tuple[Any, ...]


def _tuple(results: Any) -> Results:
    return results if isinstance(results, tuple) else (results,)


class Branches(nn.Module):
    """If: one of two graphs, by a truth value."""

    def __init__(self, then_branch: nn.Module, else_branch: nn.Module) -> None:
        super().__init__()
        self.then_branch, self.else_branch = then_branch, else_branch

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the constructor takes beside graphs."""
        return ()

    def forward(self, condition: Tensor | bool, then_captured: Results, else_captured: Results) -> Results:
        """Results of the branch taken; each branch gets its own captured values."""
        if bool(condition):
            return _tuple(self.then_branch(*then_captured))
        return _tuple(self.else_branch(*else_captured))


class Loop(nn.Module):
    """Loop: a graph that carries values from iteration to iteration, while a condition holds.

    Args:
        body: from iteration, condition, carried and captured values to condition, carried values and rows.
        limit: most iterations.
        empty: shape and type of the rows, for the case of no iteration.
    """

    def __init__(self, body: nn.Module, limit: int, empty: list[tuple[list[int], torch.dtype] | None]) -> None:
        super().__init__()
        self.body, self.limit, self.empty = body, limit, empty

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the constructor takes beside graphs."""
        return self.limit, self.empty

    def forward(
        self, trips: Tensor | int | None, condition: Tensor | bool | None, carried: Results, captured: Results
    ) -> Results:
        """The carried values at the end, and the rows of every iteration stacked."""
        most = None if trips is None else int(trips)
        going = condition is None or bool(condition)
        rows: list[Results] = []
        count = len(carried)
        while going and (most is None or len(rows) < most):
            if len(rows) >= self.limit:
                raise RuntimeError(f"an ONNX Loop runs more than {self.limit} times; raise Limits.trips to allow it")
            i, flag = torch.tensor(len(rows)), torch.tensor(True)
            keep, *results = _tuple(self.body(i, flag, *carried, *captured))
            carried, going = tuple(results[:count]), bool(keep)
            rows.append(tuple(results[count:]))
        return (*carried, *self._stacked(rows))

    def _stacked(self, rows: list[Results]) -> list[Tensor]:
        if rows:
            return [torch.stack([torch.as_tensor(row) for row in column]) for column in zip(*rows, strict=True)]
        if None in self.empty:
            raise RuntimeError("an ONNX Loop ran zero times and the file does not tell the shape of its rows")
        return [torch.empty(0, *known[0], dtype=known[1]) for known in self.empty if known is not None]


class Scan(nn.Module):
    """Scan: a graph that carries values along slices of tensors.

    Args:
        body: from carried values, slices and captured values to carried values and rows.
        count: number of scanned inputs.
        axes: of the inputs and of the outputs.
        backwards: which inputs and outputs run backwards.
        limit: most iterations.
    """

    def __init__(
        self,
        body: nn.Module,
        count: int,
        axes: tuple[Sequence[int], Sequence[int]],
        backwards: tuple[Sequence[int], Sequence[int]],
        limit: int,
    ) -> None:
        super().__init__()
        self.body, self.count, self.axes, self.backwards, self.limit = body, count, axes, backwards, limit

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the constructor takes beside graphs."""
        return self.count, self.axes, self.backwards, self.limit

    def forward(self, operands: Results, captured: Results) -> Results:
        """The carried values at the end, and the rows of every slice stacked."""
        carried, scanned = operands[: -self.count], operands[-self.count :]
        slices = []
        for k, tensor in enumerate(scanned):
            moved = tensor.movedim(self.axes[0][k] if self.axes[0] else 0, 0)
            slices.append(moved.flip(0) if self.backwards[0] and self.backwards[0][k] else moved)
        if slices[0].size(0) > self.limit:
            raise RuntimeError(f"an ONNX Scan runs more than {self.limit} times; raise Limits.trips to allow it")
        rows: list[Results] = []
        for row in zip(*(tensor.unbind(0) for tensor in slices), strict=True):
            results = _tuple(self.body(*carried, *row, *captured))
            carried = results[: len(carried)]
            rows.append(results[len(carried) :])
        stacked = []
        for k, column in enumerate(zip(*rows, strict=True)):
            ordered = column[::-1] if self.backwards[1] and self.backwards[1][k] else column
            stacked.append(torch.stack(ordered).movedim(0, self.axes[1][k] if self.axes[1] else 0))
        return (*carried, *stacked)


def build(importer: Importer, node: ir.Node) -> None:
    """Import a control-flow node."""
    attributes, values = importer.attributes(node), importer.operands(node)
    if node.op_type == "If":
        _build_if(importer, node, attributes, values)
    elif node.op_type == "Loop":
        _build_loop(importer, node, attributes["body"], values)
    else:
        _build_scan(importer, node, attributes, values)


def _inner(importer: Importer, graph: ir.Graph) -> tuple[OnnxModule, list[Value], dict[str, Any]]:
    """A graph inside of a node as a module, the outer values that it takes, and where its weights come from."""
    inner = type(importer)(importer.job, importer)
    for value in graph.inputs:
        inner.values[value] = inner.placeholder(value.name or "input")
    outputs = [inner.argument(value) for value in inner.run(graph)]
    inner.graph.output(tuple(outputs) if len(outputs) != 1 else outputs[0])
    inner.graph.lint()
    return OnnxModule(inner.root, inner.graph, "Inner"), inner.captured, dict(inner.leaves.origins)


def _arguments(importer: Importer, values: Sequence[Value | None]) -> tuple[Any, ...]:
    return tuple(None if value is None else importer.argument(value) for value in values)


def _placed(
    importer: Importer, node: ir.Node, module: nn.Module, args: tuple[Any, ...], origins: dict[str, dict[str, Any]]
) -> None:
    """Register the module, write its call and note its outputs."""
    path = importer.leaves.names.take(module_path(node.name or "", node.op_type))
    importer.leaves.add_module(path, module)
    for inner, known in origins.items():
        importer.leaves.origins.update({f"{path}.{inner}.{name}": origin for name, origin in known.items()})
    importer.assign(node, importer.unpacked(importer.call_module(path, args, node), node))


def _folded(importer: Importer, node: ir.Node, module: nn.Module, args: Sequence[Any]) -> bool:
    """Run a module now if all that it takes is constant and none of it learns."""

    def flat(items: Sequence[Any]) -> list[Any]:
        return [leaf for item in items for leaf in (flat(item) if isinstance(item, tuple) else [item])]

    if any(v is not None and (not isinstance(v, Leaf) or v.trainable) for v in flat(args)):
        return False
    if next(module.parameters(), None) is not None or _draws(module):
        return False

    def tensors(item: Any) -> Any:
        return tuple(map(tensors, item)) if isinstance(item, tuple) else None if item is None else item.tensor

    results = importer.job.folder.run(module, [tensors(arg) for arg in args], {})
    names = [out.name or "" for out in node.outputs]
    importer.assign(node, [constant(r, name) for r, name in zip(results, names, strict=False)])
    return True


def _draws(module: nn.Module) -> bool:
    """Whether a graph inside of the module may draw random numbers."""
    graphs = [inner.graph for inner in module.modules() if isinstance(inner, OnnxModule)]
    targets = [node.target for graph in graphs for node in graph.nodes]
    return any(getattr(target, "__module__", "").endswith((".random", ".normalize")) for target in targets)


def _build_if(importer: Importer, node: ir.Node, attributes: dict[str, Any], values: list[Value | None]) -> None:
    condition = values[0]
    if isinstance(condition, Leaf) and not condition.trainable:
        taken = attributes["then_branch" if bool(condition.tensor) else "else_branch"]
        importer.assign(node, importer.run(taken))
        return
    (then, then_captured, a), (other, else_captured, b) = (
        _inner(importer, attributes[name]) for name in ("then_branch", "else_branch")
    )
    choice = condition.argument if isinstance(condition, Sizes) else importer.argument(condition)
    choice = choice[0] if isinstance(choice, list) else choice
    args = (choice, _arguments(importer, then_captured), _arguments(importer, else_captured))
    _placed(importer, node, Branches(then, other), args, {"then_branch": a, "else_branch": b})


def _build_loop(importer: Importer, node: ir.Node, graph: ir.Graph, values: list[Value | None]) -> None:
    body, captured, origins = _inner(importer, graph)
    values = values + [None] * (2 - len(values))
    trips, condition, *carried = values
    empty = [_row(value) for value in graph.outputs[1 + len(carried) :]]
    module = Loop(body, importer.job.limits.trips, empty)
    if _folded(importer, node, module, (trips, condition, tuple(carried), tuple(captured))):
        return
    count: Any = None if trips is None else trips.argument if isinstance(trips, Sizes) else importer.argument(trips)
    count = count[0] if isinstance(count, list) else count
    flag = None if condition is None else importer.argument(condition)
    args = (count, flag, _arguments(importer, carried), _arguments(importer, captured))
    _placed(importer, node, module, args, {"body": origins})


def _row(value: ir.Value) -> tuple[list[int], torch.dtype] | None:
    """Shape and type of a row, if the file tells."""
    from .dtypes import TORCH

    shape = value.shape
    if shape is None or value.dtype is None or any(not isinstance(size, int) for size in shape):
        return None
    return [int(size) for size in shape], TORCH[int(value.dtype)]  # type: ignore[arg-type]


def _build_scan(importer: Importer, node: ir.Node, attributes: dict[str, Any], values: list[Value | None]) -> None:
    if importer.job.version("") < 9:
        raise OnnxImportError(SCAN_8.what, hint=SCAN_8.hint)
    body, captured, origins = _inner(importer, attributes["body"])
    axes = (attributes.get("scan_input_axes", ()), attributes.get("scan_output_axes", ()))
    backwards = (attributes.get("scan_input_directions", ()), attributes.get("scan_output_directions", ()))
    module = Scan(body, attributes["num_scan_inputs"], axes, backwards, importer.job.limits.trips)
    args = (_arguments(importer, values), _arguments(importer, captured))
    _placed(importer, node, module, args, {"body": origins})
