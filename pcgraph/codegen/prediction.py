"""What of a prediction can be evaluated once more, to the same bits and without a trace.

Not what draws random numbers or is closed to us (opaque vertices, custom functions, what carries no error), and not
what reads memory that the prediction goes on to write. Running statistics are left out: batch norm normalises by those
of the batch, and moves them once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..graph import Role
from ..graph.vertex import TensorSpec
from .cost import Costs, Effect, closed
from .footprint import Ledger
from .lines import Line

if TYPE_CHECKING:
    from .stitch import Stitcher
    from .sweep import VertexLines


class Prediction:
    """The lines of a prediction, and which of them belong together.

    Args:
        net: names of the values.
        parts: lines by vertex.
        sealed: vertices that are never evaluated again.
        costs: what lines do.

    Attributes:
        lines, vertices: all lines, and whose they are.
        effects: what each line does.
        ledger: memories behind the names.
        maker: by name, the line that makes it.
        outside: memories that exist before.
        unit: by line, the lines that have to run together with it: a memory is made, and then written.
        repeatable: by line, whether its unit can be evaluated again.
    """

    def __init__(self, net: Stitcher, parts: Sequence[VertexLines], sealed: Collection[str], costs: Costs) -> None:
        specs = {name: spec for ref, name in net.values.items() if (spec := net.graph[ref.vertex].outputs[ref.output])}
        self.ledger = Ledger(costs)
        for vertex in net.graph.vertices.values():
            if vertex.role is not Role.OPERATION and vertex.outputs[0] is not None:
                self.ledger.enter(f"x_{vertex.name}", vertex.outputs[0])
        self.outside = frozenset(range(len(self.ledger.size)))
        self.lines: list[Line] = []
        self.vertices: list[str] = []
        self.effects: list[Effect] = []
        self.maker: dict[str, int] = {}
        related = _Groups()
        shut: list[bool] = []
        for part in parts:
            writes = net.graph[part.vertex].effect
            for line in part.lines:
                effect = self._effect(line, part.vertex in sealed, specs, writes)
                self.ledger.run(line, effect)
                for out in line.outs:
                    self.maker[out] = len(self.lines)
                if effect.closed:  # its results may be views of its operands
                    related.join(m for name in (*line.reads, *line.outs) for m in self.ledger.memories[name])
                shut.append(part.vertex in sealed or effect.closed)
                self.lines.append(line)
                self.vertices.append(part.vertex)
                self.effects.append(effect)
        self._related = related
        self._group(shut)

    def _effect(self, line: Line, sealed: bool, specs: Mapping[str, TensorSpec], writes: bool) -> Effect:
        reads = [self.ledger.values[name] for name in line.reads]
        if not sealed:
            return self.ledger.costs.effect(line, reads)
        effect = closed(line, reads, specs)
        return effect if not writes else Effect(effect.values, frozenset(range(len(reads))), (), True, effect.seconds)

    def _group(self, shut: list[bool]) -> None:
        """Find units, and what is written too late."""
        find = self._related.find
        touched: dict[int, list[int]] = {}  # lines by group of memories
        written: dict[int, int] = {}  # last write, by group
        silent: set[tuple[int, int]] = set()
        for index, (line, effect) in enumerate(zip(self.lines, self.effects, strict=True)):
            for place, name in enumerate(line.reads):
                for memory in self.ledger.memories[name]:
                    group = find(memory)
                    if place in effect.writes or place in effect.silenced:
                        written[group] = index
                    if place in effect.silenced:
                        silent.add((index, group))
                    else:
                        touched.setdefault(group, []).append(index)
            for name in line.outs:
                for memory in self.ledger.memories[name]:
                    touched.setdefault(find(memory), []).append(index)
        units = _Groups()
        outside = {find(memory) for memory in self.outside}
        for group, last in written.items():
            lines = [i for i in touched.get(group, ()) if group in outside or i <= last]
            if group in outside or len({self.vertices[i] for i in lines}) > 1:
                for i in lines:
                    shut[i] = True
            else:
                units.join(lines)
        members: dict[int, list[int]] = {}
        for index in range(len(self.lines)):
            members.setdefault(units.find(index), []).append(index)
        self.unit = [tuple(members[units.find(index)]) for index in range(len(self.lines))]
        self.repeatable = [not any(shut[i] for i in self.unit[index]) for index in range(len(self.lines))]

    def again(self, index: int) -> Line:
        """A line as it is evaluated once more."""
        line, silenced = self.lines[index], self.effects[index].silenced
        return line if not silenced else without(line, silenced)

    def closure(self, names: Iterable[str], present: Collection[str]) -> list[int]:
        """Lines to evaluate so that these names exist, in order.

        Args:
            names: what is wanted.
            present: what exists, besides what comes from outside.
        """
        found: set[int] = set()
        stack = [name for name in names if name not in present and name in self.maker]
        while stack:
            index = self.maker[stack.pop()]
            if index in found:
                continue
            for member in self.unit[index]:
                found.add(member)
                stack += [n for n in self.again(member).reads if n not in present and n in self.maker]
        return sorted(found)


def without(line: Line, places: Collection[int]) -> Line:
    """A line that reads None at some of its places."""
    pieces = line.text.split("%s")
    text = pieces[0]
    for place, piece in enumerate(pieces[1:]):
        text += ("None" if place in places else "%s") + piece
    reads = tuple(name for place, name in enumerate(line.reads) if place not in places)
    return Line(line.outs, text, reads, line.constants)


class _Groups:
    """Numbers that belong together."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, item: int) -> int:
        while (parent := self._parent.get(item, item)) != item:
            self._parent[item] = self._parent.get(parent, parent)
            item = parent
        return item

    def join(self, items: Iterable[int]) -> None:
        first, *others = [self.find(item) for item in items] or [0]
        for other in others:
            self._parent[self.find(other)] = self.find(first)
