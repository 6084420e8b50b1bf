"""Lower: a captured torch.fx graph becomes a `PCGraph`. The one file that joins capture and graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from ..graph import Operation, PCGraph, Ref, Role, Slot, Vertex
from ..graph.keys import Pool
from .captured import Captured
from .mutation import users_code


def lower(captured: Captured) -> PCGraph:
    """Turn every recorded call into a vertex and drop what neither an output nor a side effect needs.

    Raises:
        CaptureError: an output or operand is not a plain tensor.
    """
    pool = Pool()
    refs: dict[fx.Node, Ref] = {}
    vertices: list[Vertex] = []
    carrying: set[Ref] = set()  # values that errors flow back through
    outputs: tuple[Ref, ...] = ()
    for node in captured.graph.nodes:
        if node.op == "output":
            outputs = tuple(refs[item] for item in node.args[0])
            continue
        if node.meta.get("item"):
            refs[node] = Ref(refs[node.args[0]].vertex, node.args[1])
            continue
        if node.op in ("placeholder", "get_attr"):
            role = node.meta["role"]
            vertices.append(Vertex(node.name, role, node.meta["specs"], module_path=node.meta["module_path"]))
            refs[node] = Ref(node.name)
        else:
            vertex = _vertex(node, refs, pool)
            if vertex.differentiable and not any(ref in carrying for ref in vertex.operands):
                # The model's own affair (it differentiates by a leaf that it made): no error comes here.
                specs = tuple(spec and replace(spec, requires_grad=False) for spec in vertex.outputs)
                vertex = replace(vertex, outputs=specs)
            vertices.append(vertex)
            refs[node] = Ref(node.name)
        for k, spec in enumerate(vertices[-1].outputs):
            if spec is not None and spec.requires_grad:
                carrying.add(Ref(node.name, k))
    return PCGraph(_needed(vertices, outputs), outputs, captured.name)


def _vertex(node: fx.Node, refs: dict[fx.Node, Ref], pool: Pool) -> Vertex:
    operands: list[fx.Node] = []

    def slot(value: Any) -> Any:
        if isinstance(value, fx.Node):
            operands.append(value)
            return Slot(len(operands) - 1)
        if isinstance(value, tuple):
            items = [slot(item) for item in value]
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, list):
            return [slot(item) for item in value]
        if isinstance(value, dict):
            return {key: slot(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(slot(value.start), slot(value.stop), slot(value.step))
        return value

    args = tuple(slot(value) for value in node.args)
    kwargs = tuple((key, slot(value)) for key, value in node.kwargs.items())
    target: Any = getattr(torch.Tensor, str(node.target)) if node.op == "call_method" else node.target
    written = node.meta.get("written", [])
    writes = tuple(index for index, operand in enumerate(operands) if operand in written)
    operation = Operation(
        _display_name(node), target, args, kwargs, writes, node.meta.get("random", False), users_code(target)
    )
    return Vertex(
        node.name,
        Role.OPERATION,
        node.meta["specs"],
        tuple(refs[operand] for operand in operands),
        pool.operation(operation),
        node.meta["multi"],
        bool(writes),
        node.meta["module_path"],
        node.meta["source"],
        node.meta["checkpoint"],
    )


def _display_name(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    if node.target is getattr and isinstance(node.args[1], str):
        return node.args[1]
    return str(getattr(node.target, "__name__", type(node.target).__name__))


def _needed(vertices: list[Vertex], outputs: tuple[Ref, ...]) -> list[Vertex]:
    """Vertices that an output or an effect depends on; random draws stay, so that later draws are the same."""
    needed = {ref.vertex for ref in outputs}
    kept = []
    for vertex in reversed(vertices):
        random = vertex.operation is not None and vertex.operation.random
        if vertex.name in needed or vertex.effect or random or vertex.role in (Role.INPUT,):
            kept.append(vertex)
            needed.update(ref.vertex for ref in vertex.operands)
    kept.reverse()
    return kept
