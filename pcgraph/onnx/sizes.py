"""Arithmetic on sizes: the chains of Shape, Gather, Concat and the like that lead to a Reshape.

Everything here works on whole numbers in Python, some of which are fx nodes that give one at run time (``x.size(0)``).
What it cannot express is answered with None, and becomes ordinary tensor operations.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from .dtypes import TORCH
from .values import Entry, Leaf, Sizes, Value

MOST = 64  # longer lists are data, not shapes
_WHOLE = (torch.int64, torch.int32, torch.bool)


def truncated(a: int, b: int) -> int:
    """Quotient of whole numbers, rounded towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": truncated,
    "Mod": operator.mod,
    "Min": min,
    "Max": max,
}
_COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": operator.eq,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
}
_KEEPS_NATURAL = ("Add", "Mul", "Div", "Mod", "Min", "Max")
_REDUCTION: dict[str, Callable[[Any, Any], Any]] = {
    "ReduceProd": operator.mul,
    "ReduceSum": operator.add,
    "ReduceMax": max,
    "ReduceMin": min,
}


def as_sizes(value: Value | None) -> Sizes | None:
    """A value as whole numbers, if it is a short list of them."""
    if isinstance(value, Sizes):
        return value
    if not isinstance(value, Leaf) or value.trainable:
        return None
    tensor = value.tensor
    if tensor.dim() > 1 or tensor.numel() > MOST or tensor.dtype not in _WHOLE:
        return None
    entries = tuple(tensor.reshape(-1).tolist())
    natural = frozenset(i for i, entry in enumerate(entries) if entry >= 0)
    return Sizes(entries, tensor.dim() == 0, tensor.dtype, natural)


def as_tensor(entries: Sequence[int] | int, dtype: torch.dtype) -> torch.Tensor:
    """Whole numbers as a tensor, at run time."""
    return torch.tensor(entries, dtype=dtype)


class Arithmetic:
    """Evaluates nodes whose operands are sizes, writing what only a call knows into the graph."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._sizes: dict[tuple[fx.Node, int], fx.Node] = {}

    def size(self, x: fx.Node, dim: int) -> fx.Node:
        """The node of ``x.size(dim)``, one for all that ask."""
        if (x, dim) not in self._sizes:
            self._sizes[x, dim] = self.graph.call_method("size", (x, dim))
        return self._sizes[x, dim]

    def shape(
        self, x: fx.Node, rank: int, pinned: Sequence[int | None], start: int = 0, end: int | None = None
    ) -> Sizes:
        """The result of a Shape operator: sizes that are promised as numbers, the others as nodes."""
        dims = range(rank)[slice(start, end)]
        entries = tuple(self.size(x, d) if pinned[d] is None else int(pinned[d] or 0) for d in dims)
        return Sizes(entries, False, torch.int64, frozenset(range(len(dims))))

    def evaluate(self, op: str, values: Sequence[Value | None], attributes: dict[str, Any]) -> Sizes | None:
        """The result of a node on sizes; None if it is not understood here, or an operand is no list of numbers.

        At least one operand must be a `Sizes`; operands of constants alone are folded elsewhere.
        """
        if not any(isinstance(value, Sizes) for value in values):
            return None
        if attributes.get("fmod") or attributes.get("noop_with_empty_axes"):
            return None
        given = [as_sizes(value) for value in values]
        if op == "Concat":
            return None if any(g is None or g.scalar for g in given) else _concatenated([g for g in given if g])
        first = given[0] if given else None
        if first is None:
            return None
        if op in _BINARY or op in _COMPARISON:
            return self._binary(op, first, given[1] if len(given) == 2 else None)
        if op == "Where":
            return self._where(given)
        return self._unary(op, first, given, values, attributes)

    def _unary(
        self,
        op: str,
        x: Sizes,
        given: Sequence[Sizes | None],
        values: Sequence[Value | None],
        attributes: dict[str, Any],
    ) -> Sizes | None:
        axes = _numbers(given[1]) if len(given) > 1 and given[1] is not None else attributes.get("axes")
        if op == "Identity":
            return x
        if op == "Cast":
            dtype = TORCH.get(attributes["to"])
            return (
                Sizes(x.entries, x.scalar, dtype, x.natural) if dtype in _WHOLE[:2] and x.dtype in _WHOLE[:2] else None
            )
        if op == "Unsqueeze":
            return Sizes(x.entries, False, x.dtype, x.natural) if x.scalar and axes in ([0], [-1]) else None
        if op == "Squeeze":
            return Sizes(x.entries, True, x.dtype, x.natural) if len(x.entries) == 1 and not x.scalar else None
        if op == "Reshape" and axes is not None:
            if axes in ([], [-1], [len(x.entries)]) and (axes or len(x.entries) == 1):
                return Sizes(x.entries, not axes, x.dtype, x.natural)
            return None
        if op == "Gather" and len(given) == 2 and given[1] is not None and not x.scalar:
            return _gathered(x, given[1])
        if op == "Slice" and not x.scalar:
            return _sliced(x, given, attributes)
        if op in _REDUCTION and not x.scalar and x.dtype != torch.bool:
            return self._reduced(op, x, attributes)
        return None

    def call(self, function: Callable[..., Any], *entries: Entry) -> Entry:
        """A function of whole numbers: now if all are known, otherwise as a node."""
        if not any(isinstance(entry, fx.Node) for entry in entries):
            result: int = function(*entries)
            return result
        return self.graph.call_function(function, entries)

    def _binary(self, op: str, a: Sizes, b: Sizes | None) -> Sizes | None:
        if b is None or (op in _BINARY and torch.bool in (a.dtype, b.dtype)):
            return None
        count = max(len(a.entries), len(b.entries))
        if len(a.entries) not in (1, count) or len(b.entries) not in (1, count):
            return None
        entries: list[Entry] = []
        natural = set()
        for i in range(count):
            k, m = i % len(a.entries), i % len(b.entries)
            both = k in a.natural and m in b.natural
            x, y = a.entries[k], b.entries[m]
            if op in ("Div", "Mod") and y == 0:
                return None
            if op == "Equal" and _never_equal(x, k in a.natural, y, m in b.natural):
                entries.append(False)
            elif op == "Div" and both:
                entries.append(self.call(operator.floordiv, x, y))
            else:
                entries.append(self.call({**_BINARY, **_COMPARISON}[op], x, y))
            if both and op in _KEEPS_NATURAL:
                natural.add(i)
        dtype = torch.bool if op in _COMPARISON else a.dtype
        return Sizes(tuple(entries), a.scalar and b.scalar, dtype, frozenset(natural))

    def _where(self, given: Sequence[Sizes | None]) -> Sizes | None:
        condition, a, b = given
        if condition is None or a is None or b is None or not condition.known:
            return None
        count = max(len(part.entries) for part in (condition, a, b))
        if any(len(part.entries) not in (1, count) for part in (condition, a, b)):
            return None
        picked, natural = [], set()
        for i in range(count):
            source = a if condition.entries[i % len(condition.entries)] else b
            at = i % len(source.entries)
            picked.append(source.entries[at])
            if at in source.natural:
                natural.add(i)
        scalar = condition.scalar and a.scalar and b.scalar
        return Sizes(tuple(picked), scalar, a.dtype, frozenset(natural))

    def _reduced(self, op: str, x: Sizes, attributes: dict[str, Any]) -> Sizes | None:
        if not x.entries:
            return None
        total = x.entries[0]
        for entry in x.entries[1:]:
            total = self.call(_REDUCTION[op], total, entry)
        all_natural = len(x.natural) == len(x.entries)
        return Sizes((total,), not attributes.get("keepdims", 1), x.dtype, frozenset({0} if all_natural else ()))


def _never_equal(x: Entry, x_natural: bool, y: Entry, y_natural: bool) -> bool:
    """A size against -1: the question of an exported `expand`."""
    return (isinstance(y, int) and y < 0 and x_natural) or (isinstance(x, int) and x < 0 and y_natural)


def _numbers(sizes: Sizes) -> list[int] | None:
    return [entry for entry in sizes.entries if isinstance(entry, int)] if sizes.known else None


def _concatenated(parts: Sequence[Sizes]) -> Sizes:
    entries: list[Entry] = []
    natural = set()
    for part in parts:
        natural |= {len(entries) + i for i in part.natural}
        entries += part.entries
    return Sizes(tuple(entries), False, parts[0].dtype, frozenset(natural))


def _picked(x: Sizes, index: Sequence[int], scalar: bool) -> Sizes:
    at = [i + len(x.entries) if i < 0 else i for i in index]
    natural = frozenset(k for k, i in enumerate(at) if i in x.natural)
    return Sizes(tuple(x.entries[i] for i in at), scalar, x.dtype, natural)


def _gathered(x: Sizes, index: Sizes) -> Sizes | None:
    at = _numbers(index)
    if at is None or any(not -len(x.entries) <= i < len(x.entries) for i in at):
        return None
    return _picked(x, at, index.scalar)


def _sliced(x: Sizes, given: Sequence[Sizes | None], attributes: dict[str, Any]) -> Sizes | None:
    if len(given) > 1:
        operands = [None if g is None else _numbers(g) for g in given[1:]]
        starts, ends = operands[:2]
        step = operands[3] if len(operands) > 3 else [1]
    else:
        starts, ends, step = attributes.get("starts"), attributes.get("ends"), [1]
    if starts is None or ends is None or step is None or len(starts) != 1 or step[0] < 1:
        return None
    picked = range(len(x.entries))[slice(starts[0], ends[0], step[0])]
    return _picked(x, list(picked), False)
