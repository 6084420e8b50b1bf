"""Lines that move value nodes and error nodes: ``x += gamma * (incoming - eps)``, ``eps = x - mu``.

Errors are held in PyTorch's sign, ``e = mu - x``, so that what reaches a parameter is its gradient. Each formula is the
paper's with all signs turned, which rounds alike.
"""

from __future__ import annotations

from ..graph import Ref, TensorSpec
from .buffers import Scratch, into
from .cells import Cells
from .finite import difference as careful
from .layouts import dense, separate
from .lines import Line, fresh_name
from .moves import Moves
from .sweep import error_name


class Sums:
    """What the values one level deeper have collected in this step, in the order in which it arrives.

    Args:
        scratch: buffers for it.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._of: dict[Ref, str] = {}
        self._layouts: dict[str, TensorSpec] = {}

    def collected(self, moves: Moves) -> tuple[list[Line], list[tuple[Ref, str, TensorSpec]]]:
        """The lines that pull a vertex's error back, with results in buffers where the calls can do that."""
        lines, handed = list(moves.pull), list(moves.handed)
        for k, (ref, name, spec) in enumerate(handed):
            last = max((n for n, line in enumerate(lines) if name in line.outs), default=None)
            readers = [line for line in lines if name in line.reads] + [
                h for h in handed if h[1] == name and h[0] != ref
            ]
            if last is None or readers or dense(spec) != spec:
                continue
            direct = into(lines[last], "")
            if direct is not None:
                buffer = self._scratch.take(spec)
                lines[last] = Line((), direct.text, (*direct.reads[:-1], buffer), direct.constants)
                handed[k] = (ref, buffer, spec)
        return lines, handed

    def add(self, ref: Ref, name: str, spec: TensorSpec) -> list[Line]:
        """One more contribution to a value."""
        before = self._of.get(ref)
        if before is None:
            self._of[ref], self._layouts[name] = name, spec
            return []
        if self._scratch.owns(before) and self._layouts[before].shape == spec.shape:
            return [Line((), "%s.add_(%s)", (before, name))]
        total = self._of[ref] = self._scratch.take(dense(self._layouts[before]))
        self._layouts[total] = dense(self._layouts[before])
        return [Line((), "torch.add(%s, %s, out=%s)", (before, name, total))]

    def of(self, ref: Ref) -> str | None:
        """Name of the sum."""
        return self._of.get(ref)

    def layout(self, ref: Ref) -> TensorSpec:
        """Layout of the sum."""
        return self._layouts[self._of[ref]]

    def minus(self, ref: Ref, error: str) -> tuple[Line, str]:
        """The sum minus the value's own error, and the name of that."""
        name = self._of[ref]
        own = name if self._scratch.owns(name) else self._scratch.take(dense(self._layouts[name]))
        return Line((), "torch.sub(%s, %s, out=%s)", (name, error, own)), own


def place(cells: Cells, ref: Ref, mu: str) -> Line:
    """A value node starts at its prediction; it gets memory of its own when it moves, or here if it must."""
    own = separate(cells.predicted[ref])
    return Line((cells.values[ref],), "%s" if own else "%s.clone()", (mu,))


def move(cells: Cells, ref: Ref, mu: str, sums: Sums) -> tuple[list[Line], list[Line]]:
    """One step of a hidden value: the first, where its error is still 0, and any later one."""
    x, e, incoming = cells.values[ref], error_name(ref), sums.of(ref)
    if incoming is None:  # an item of a tuple that nobody reads: its own error alone pulls it back
        return [Line((x,), "%s.clone()", (mu,))], [Line((), "%s.add_(%s, alpha=gamma)", (x, e))]
    difference, d = sums.minus(ref, e)
    later = [difference, Line((), "%s.sub_(%s, alpha=gamma)", (x, d))]
    layout = cells.layouts[ref]
    if not separate(cells.predicted[ref]):
        first = [Line((), "%s.sub_(%s, alpha=gamma)", (x, incoming))]
    elif layout == dense(layout):
        first = [
            Line((x,), "torch.empty_like(%s)", (mu,)),
            Line((), "torch.sub(%s, %s, alpha=gamma, out=%s)", (mu, incoming, x)),
        ]
    else:  # pieces of a tensor, and what else has gaps: the same strides, since kernels round by them
        first = [
            Line((x,), f"%s.new_empty_strided({layout.shape}, {layout.stride})", (mu,)),
            Line((), "torch.sub(%s, %s, alpha=gamma, out=%s)", (mu, incoming, x)),
        ]
    return first, later


def wander(ref: Ref, sums: Sums) -> tuple[list[Line], list[Line]]:
    """One step of the error node of a clamped input."""
    e, incoming = error_name(ref), sums.of(ref)
    if incoming is None:
        return [], []
    difference, d = sums.minus(ref, e)
    later = [difference, Line((), "%s.add_(%s, alpha=gamma)", (e, d))]
    return [Line((e,), "%s * gamma", (incoming,))], later


def difference(cells: Cells, ref: Ref, mu: str) -> tuple[list[Line], list[Line]]:
    """The error of a hidden value that has moved: the first time, and later into the same memory."""
    x, e = cells.values[ref], error_name(ref)
    if ref.vertex in cells.unbounded:
        name = fresh_name()
        line = Line((e,), f"{name}(%s, %s)", (mu, x), ((name, careful),))
        return [line], [line]
    later = [Line((), "torch.sub(%s, %s, out=%s)", (mu, x, e))]
    layout = cells.layouts[ref]
    if layout == dense(layout) and cells.predicted[ref] == layout:
        return [Line((e,), "%s - %s", (mu, x))], later
    made = Line((e,), f"%s.new_empty_strided({layout.shape}, {cells.errors[ref].stride})", (x,))
    return [made, *later], later


def awake(cells: Cells, ref: Ref, mu: str) -> list[Line]:
    """A hidden value and its error before step 0, in memory of their own."""
    if not cells.graph.depth[ref.vertex]:
        return []
    x, layout = cells.values[ref], cells.layouts[ref]
    return [
        Line((x,), f"%s.new_empty_strided({layout.shape}, {layout.stride}).copy_(%s)", (mu, mu)),
        Line((error_name(ref),), f"%s.new_empty_strided({layout.shape}, {cells.errors[ref].stride}).zero_()", (x,)),
    ]
