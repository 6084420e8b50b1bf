"""A stretch of inference: a few levels of one step as pure lines, for a back end that puts several into one kernel.

It computes what the levels one by one compute, from the state at time t to that at t + 1, in the order of `inference`.
Every name is assigned once; what has to be in a node's memory afterwards is listed by its home. Nothing is left
out of the last steps: what they need not compute is cheaper than another kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..graph import Ref, TensorSpec
from .buffers import transposed
from .cells import Cells
from .lines import Line
from .moves import Moves
from .sweep import error_name

ACCUMULATE = "%s.addmm_(%s, %s)"
_PRODUCT = "torch.mm(%s, %s)"
_LINEAR = "torch._C._nn.linear(%s, %s, %s)"
_aten = torch.ops.aten


@dataclass
class Stretch:
    """Lines of single assignment.

    Attributes:
        lines: in an order in which they may run.
        homes: where a value has to be in the end, by the name that it has in `lines`.
        owned: homes whose memory belongs to the program: they may be written in place.
        layouts: of results that die inside.
        rates: gamma as a number of a type, on a device.
        still: names of what is the same at every step.
    """

    lines: list[Line] = field(default_factory=list)
    homes: dict[str, str] = field(default_factory=dict)
    owned: set[str] = field(default_factory=set)
    layouts: dict[str, TensorSpec] = field(default_factory=dict)
    rates: dict[str, TensorSpec] = field(default_factory=dict)
    still: frozenset[str] = frozenset()


class Writer:
    """Writes a stretch, in the order: pulls of a level, moves of the values one level deeper, predictions of the level.

    Args:
        cells: names and layouts.
        predictions: names of the predictions, by value.
        needed: names that are read in other steps or other levels.
        still: names of values that do not move.
        held: predictions that somebody else may hold.
    """

    def __init__(
        self,
        cells: Cells,
        predictions: Mapping[Ref, str],
        needed: frozenset[str],
        still: frozenset[str],
        held: frozenset[str],
    ) -> None:
        self.stretch = Stretch(still=still)
        self._cells, self._predictions = cells, predictions
        self._needed, self._still, self._held = needed, still, held
        self._now: dict[str, str] = {}
        self._sums: dict[Ref, str] = {}

    def pull(self, moves: Moves) -> None:
        """A vertex hands its error back."""
        self._run(moves.pull)
        for line in moves.pull:
            if line.text == _PRODUCT and (spec := self._product(moves, line.reads)) is not None:
                self.stretch.layouts[self._now[line.outs[0]]] = spec
        for ref, name, spec in moves.handed:
            made = self._now.get(name, name)
            self.stretch.layouts.setdefault(made, spec)
            before = self._sums.get(ref)
            if before is None:
                self._sums[ref] = name
            else:
                self._sums[ref] = f"s_{self._cells.values[ref]}"
                self._put(self._sums[ref], "%s + %s", _aten.add.Tensor, before, name)

    def move(self, ref: Ref) -> None:
        """One step of a value, or of the error of a clamped input."""
        x, e, total = self._cells.values[ref], error_name(ref), self._sums.pop(ref, None)
        clamped = ref not in self._predictions
        if total is None:
            if clamped:
                return
            pull = e
        else:
            pull = self._put(f"d_{x}", "%s - %s", _aten.sub.Tensor, total, e)
        pull = self._put(f"m_{x}", "%s * %s", _aten.mul.Tensor, pull, self._rate(self._cells.layouts[ref]))
        if clamped:
            self._settle(self._put(e, "%s + %s", _aten.add.Tensor, e, pull), owned=True)
        elif total is None:
            self._settle(self._put(x, "%s + %s", _aten.add.Tensor, x, pull), owned=True)
        else:
            self._settle(self._put(x, "%s - %s", _aten.sub.Tensor, x, pull), owned=True)

    def predict(self, moves: Moves, again: bool) -> None:
        """A vertex predicts, from operands that have moved, and the errors of its values follow."""
        hidden = bool(self._cells.graph.depth[moves.vertex])
        lines = moves.again if again else ()
        product = lines[-1] if lines and self._is_linear(moves, lines[-1]) else None
        self._run(lines if product is None else lines[:-1])
        settled = product is not None and self._linear(moves, product, hidden)
        for line in lines[:-1] if settled else lines:
            for out in line.outs:
                predicted = out in moves.predictions
                if out in self._needed or (predicted and not hidden):
                    self._settle(out, owned=out not in self._held and (hidden or not predicted))
        if hidden and not settled:
            for ref, mu in zip(moves.refs, moves.predictions, strict=True):
                self._difference(ref, mu)

    def _is_linear(self, moves: Moves, line: Line) -> bool:
        """Whether a line predicts a matrix by a product with a weight."""
        predicts = line.text == _LINEAR and line.outs == moves.predictions
        return predicts and len(self._cells.predicted[moves.refs[0]].shape) == 2

    def _linear(self, moves: Moves, line: Line, hidden: bool) -> bool:
        """A product whose bias and difference go to neighbouring kernels; True if nothing is left to do."""
        ref, mu = moves.refs[0], moves.predictions[0]
        value, weight, bias = line.reads
        turned = transposed(weight)
        if weight not in self._still:
            turned = self._put(f"turned_{weight}", "torch.t(%s)", _aten.t.default, weight)
        if hidden and mu not in self._needed and ref.vertex not in self._cells.unbounded:
            e, x = error_name(ref), self._cells.values[ref]
            self._settle(self._put(e, "%s - %s", _aten.sub.Tensor, bias, x), owned=True)
            self._settle(self._put(e, ACCUMULATE, _aten.addmm.default, e, value, turned), owned=True)
            self.stretch.layouts[self._now[e]] = self._cells.errors[ref]
            return True
        product = self._put(f"q_{mu}", _PRODUCT, _aten.mm.default, value, turned)
        self.stretch.layouts[self._now[product]] = self._cells.predicted[ref]
        self._put(mu, "%s + %s", _aten.add.Tensor, product, bias)
        return False

    def _product(self, moves: Moves, reads: Sequence[str]) -> TensorSpec | None:
        """Layout of the product of a vertex's error and one of its operands."""
        cells = self._cells
        known = {error_name(ref): cells.errors[ref] for ref in moves.refs}
        known |= {cells.values[ref]: cells.layouts[ref] for ref in cells.graph[moves.vertex].operands}
        if not all(name in known for name in reads):
            return None
        (rows, _), (_, columns) = (known[name].shape for name in reads)
        return replace(known[reads[0]], shape=(rows, columns), stride=(columns, 1), requires_grad=False)

    def _difference(self, ref: Ref, mu: str) -> None:
        x, e = self._cells.values[ref], error_name(ref)
        if ref.vertex in self._cells.unbounded:
            same = self._put(f"i_{x}", "%s == %s", _aten.eq.Tensor, mu, x)
            gap = self._put(f"d_{x}", "%s - %s", _aten.sub.Tensor, mu, x)
            self._put(e, "torch.where(%s, 0.0, %s)", _aten.where.ScalarSelf, same, gap)
        else:
            self._put(e, "%s - %s", _aten.sub.Tensor, mu, x)
        self._settle(e, owned=True)

    # -- names -------------------------------------------------------------------------------------
    def _rate(self, spec: TensorSpec) -> str:
        wide = spec.dtype in (torch.float64, torch.complex128)
        dtype = torch.float64 if wide else torch.float32  # float64 is not everywhere
        name = f"gamma_{str(dtype).removeprefix('torch.')}_{str(spec.device).replace(':', '_')}"
        self.stretch.rates[name] = replace(spec, shape=(), stride=(), dtype=dtype, requires_grad=False)
        return name

    def _run(self, lines: Sequence[Line]) -> None:
        for line in lines:
            reads = tuple(self._now.get(name, name) for name in line.reads)
            self.stretch.lines.append(replace(line, outs=tuple(map(self._fresh, line.outs)), reads=reads))

    def _put(self, name: str, text: str, target: Any, *reads: str) -> str:
        self._run([Line((name,), text, reads, (), target)])
        return name

    def _fresh(self, name: str) -> str:
        self._now[name] = f"{name}__{len(self.stretch.lines)}"
        return self._now[name]

    def _settle(self, name: str, owned: bool) -> None:
        self.stretch.homes[self._now[name]] = name
        if owned:
            self.stretch.owned.add(name)
