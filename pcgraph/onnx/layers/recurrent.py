"""nn.LSTM, nn.GRU and nn.RNN of one layer, their weights unpacked from ONNX's order of gates."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..steps import Blocks, Select, Step
from ..values import Leaf, Value
from .site import Site, on_meta

# Where torch's gates stand among ONNX's: i, f, g, o of i, o, f, c, and r, z, n of z, r, h.
_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_DEFAULT = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def lstm(site: Site) -> Sequence[Value | None] | None:
    """nn.LSTM without peepholes."""
    if site.value(7) is not None or site.attributes.get("input_forget", 0):
        return None
    return _recurrent(site, "LSTM", nn.LSTM, {})


def gru(site: Site) -> Sequence[Value | None] | None:
    """nn.GRU, which resets after the product."""
    if not site.attributes.get("linear_before_reset", 0):
        return None
    return _recurrent(site, "GRU", nn.GRU, {})


def rnn(site: Site) -> Sequence[Value | None] | None:
    """nn.RNN with tanh or relu."""
    names = {name.lower() for name in site.attributes.get("activations") or ["tanh"]}
    if len(names) != 1 or not names <= {"tanh", "relu"}:
        return None
    return _recurrent(site, "RNN", nn.RNN, {"nonlinearity": names.pop()})


def _recurrent(site: Site, kind: str, make: Any, more: dict[str, Any]) -> Sequence[Value | None] | None:
    get = site.attributes.get
    both = get("direction", "forward") == "bidirectional"
    if get("direction", "forward") == "reverse" or get("clip") or get("layout", 0) or site.value(4) is not None:
        return None
    names = [name.lower() for name in get("activations") or []]
    if names and not more and names != _DEFAULT[kind] * (2 if both else 1):
        return None
    weights = [site.leaf(operand) for operand in (1, 2)]
    bias = site.leaf(3)
    if any(leaf is None for leaf in weights) or (site.value(3) is not None and bias is None):
        return None
    leaves = [leaf for leaf in (*weights, bias) if leaf is not None]
    if any(not site.fits(leaf, Select(0, 0)) for leaf in leaves):
        return None
    w, r = leaves[:2]
    module = make(
        w.shape[2], r.shape[2], 1, bias=bias is not None, bidirectional=both, device=on_meta(),
        dtype=w.weight.tensor.dtype, **more
    )  # fmt: skip
    path = site.path(*leaves)
    for name, leaf, steps in _parts(kind, w, r, bias, both):
        site.set(module, path, name, leaf, *steps)
    return _outputs(site, kind, module, path)


def _parts(kind: str, w: Leaf, r: Leaf, bias: Leaf | None, both: bool) -> list[tuple[str, Leaf, tuple[Step, ...]]]:
    """Names of the module's parameters, and how each is cut out of the file's three tensors."""
    order, parts = _ORDER[kind], []
    gates = len(order)
    for direction, suffix in enumerate(("_l0", "_l0_reverse")[: 2 if both else 1]):
        parts.append((f"weight_ih{suffix}", w, (Select(0, direction), Blocks(0, gates, order))))
        parts.append((f"weight_hh{suffix}", r, (Select(0, direction), Blocks(0, gates, order))))
        if bias is not None:
            second = tuple(gates + i for i in order)
            parts.append((f"bias_ih{suffix}", bias, (Select(0, direction), Blocks(0, 2 * gates, order))))
            parts.append((f"bias_hh{suffix}", bias, (Select(0, direction), Blocks(0, 2 * gates, second))))
    return parts  # type: ignore[return-value]


def _outputs(site: Site, kind: str, module: nn.Module, path: str) -> Sequence[Value | None]:
    """Call the module and bring its results into ONNX's shapes."""
    graph = site.importer.graph
    initial = site.argument(5) if site.value(5) is not None else None
    cell = site.argument(6) if kind == "LSTM" and site.value(6) is not None else None
    if kind == "LSTM" and (initial is None) != (cell is None):
        given = initial if initial is not None else cell
        zeros = graph.call_function(torch.zeros_like, (given,))
        initial, cell = (zeros, cell) if initial is None else (initial, zeros)
    state = initial if kind != "LSTM" or initial is None else (initial, cell)
    called = site.call(module, path) if state is None else site.call(module, path, state)
    taken = [graph.call_function(operator.getitem, (called, i)) for i in range(2)]
    directions = 2 if site.attributes.get("direction") == "bidirectional" else 1
    results: list[Value | None] = [graph.call_function(by_direction, (taken[0], directions))]
    if kind != "LSTM":
        return [*results, taken[1]]
    return [*results, *(graph.call_function(operator.getitem, (taken[1], i)) for i in range(2))]


def by_direction(y: Tensor, directions: int) -> Tensor:
    """[T, B, D H] as ONNX has it, [T, D, B, H]."""
    if directions == 1:
        return y.unsqueeze(1)
    return y.unflatten(-1, (directions, -1)).transpose(1, 2)
