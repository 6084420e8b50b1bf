"""Cuts a traced vertex into its prediction and its learning part."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import get_proxy_mode

_aten = torch.ops.aten
HIDDEN_WRITES = (_aten.native_batch_norm.default, _aten.cudnn_batch_norm.default, _aten.miopen_batch_norm.default)


def mutates(node: fx.Node) -> bool:
    """Whether a call writes to an operand or draws random numbers: it must stay, and stay in order."""
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return target._schema.is_mutable or target in HIDDEN_WRITES or torch.Tag.nondeterministic_seeded in target.tags


def simplify(graph: fx.Graph) -> None:
    """Drop aliases, double transposes and dead pure calls, and make one call of two. Values and rounding stay."""
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in (_aten.detach.default, _aten.alias.default):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target is _aten.t.default:
            source = node.args[0]
            if isinstance(source, fx.Node) and source.target is _aten.t.default:
                node.replace_all_uses_with(source.args[0])
                graph.erase_node(node)
        elif node.target is _aten.view.default:
            _sum_without_dimensions(node)
        elif node.target is _aten.addmm.default:
            _linear(node)
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and not mutates(node):
            graph.erase_node(node)


def _sum_without_dimensions(node: fx.Node) -> None:
    """Autograd sums a bias' error with the dimensions kept, and views the result without them."""
    source: Any = node.args[0]
    if source.target is not _aten.sum.dim_IntList or len(source.args) != 3 or not source.args[2] or source.kwargs:
        return
    value = source.args[0].meta["val"]
    dimensions = [d % value.dim() for d in source.args[1]]
    rest = [size for d, size in enumerate(value.shape) if d not in dimensions]
    if list(node.meta["val"].shape) == rest and value.is_contiguous():
        node.target, node.args = source.target, (*source.args[:2], False)


def _linear(node: fx.Node) -> None:
    """Torch's linear layer transposes the weight and multiplies; its own call does so faster."""
    arguments: Any = node.args
    if len(arguments) != 3 or node.kwargs:
        return
    bias, value, weight = arguments
    transposed = isinstance(weight, fx.Node) and weight.target is _aten.t.default
    if transposed and "val" in bias.meta and bias.meta["val"].dim() == 1:
        node.target, node.args = _aten.linear.default, (value, weight.args[0], bias)


def names_so_far() -> list[str]:
    """Names of the calls that the trace now running has recorded, in order."""
    mode = get_proxy_mode()
    assert mode is not None
    return [node.name for node in mode.tracer.graph.nodes if node.op != "placeholder"]


def cut(graph: fx.Graph, predicted: frozenset[str], results: list[fx.Node]) -> tuple[list[fx.Node], list[fx.Node]]:
    """Split the calls of a trace.

    Args:
        graph: a simplified trace.
        predicted: names of the calls that were made before autograd began.
        results: nodes of the outputs.

    Returns:
        The calls of the prediction and those of learning, each in order. The prediction is the same whatever errors
        arrive: what autograd itself calls, even where no error enters, belongs to learning.
    """
    calls = [node for node in graph.nodes if node.op == "call_function"]
    before = [node for node in calls if node.name in predicted]
    writes = [node for node in before if mutates(node)]
    # A value that is written later must be read before: then everything is predicted, in order.
    needed: set[fx.Node] = set(before) if writes else set()
    stack = [*results, *writes]
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.all_input_nodes)
    predict, learn = [], []
    for node in calls:
        item = node.target is operator.getitem and node.args[0] in needed
        if node in needed or item:
            predict.append(node)
            needed.add(node)
        else:
            learn.append(node)
    return predict, learn
