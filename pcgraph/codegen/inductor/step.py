"""A stretch of inference as few calls: products of the library's, and one kernel for all that stands between two.

Kernels write into the nodes' own memory, so that a step allocates next to nothing. A value is overwritten only when
everybody who reads what was there has done so.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

from ..buffers import Scratch, into
from ..lines import Line, fresh_name
from ..stretch import ACCUMULATE, Stretch
from .fusable import is_product, is_view, operator_name, weight
from .product import RightHand
from .regions import Region

Kernel = Callable[[Region, tuple[int | None, ...]], Line]


class Calls:
    """The calls of a stretch.

    Args:
        stretch: pure lines.
        scratch: buffers for products.
        kernel: makes the call of a region; the places say which of its arguments a result is written into.

    Attributes:
        lines: in order; None where a home is a view of something else.
    """

    def __init__(self, stretch: Stretch, scratch: Scratch, kernel: Kernel) -> None:
        self._stretch, self._scratch, self._kernel = stretch, scratch, kernel
        self._lines = stretch.lines
        self._made = {out: k for k, line in enumerate(self._lines) for out in line.outs}
        self._views = self._of_views()
        self._products = self._of_products()
        self._buffers: dict[str, str] = {}  # of products that die inside
        self._after = self._dependencies()
        self.lines: list[Line] | None = None
        if not any(self._made[name] in self._views for name in stretch.homes):
            self.lines = self._scheduled()

    # -- kinds of lines --------------------------------------------------------------------------
    def _of_views(self) -> set[int]:
        found: set[int] = set()
        for k, line in enumerate(self._lines):
            part = line.target is operator.getitem and self._made.get(line.reads[0]) in found
            if part or is_view(line):
                found.add(k)
        return found

    def _of_products(self) -> set[int]:
        found: set[int] = set()
        for k, line in enumerate(self._lines):
            part = line.target is operator.getitem and self._made.get(line.reads[0]) in found
            if part or is_product(line):
                found.add(k)
        return found

    # -- order -----------------------------------------------------------------------------------
    def _bases(self, line: Line) -> set[str]:
        """What a line reads, seen through views."""
        found: set[str] = set()
        todo = list(line.reads)
        while todo:
            name = todo.pop()
            if self._made.get(name) in self._views:
                todo += self._lines[self._made[name]].reads
            else:
                found.add(name)
        return found

    def _dependencies(self) -> list[set[int]]:
        """Per line, those that must have run: they make what it reads, or read what it overwrites."""
        readers: dict[str, list[int]] = {}
        holds: dict[str, str] = {}  # home -> the name of what is there
        after: list[set[int]] = []
        for k, line in enumerate(self._lines):
            bases = self._bases(line) if k not in self._views else set()
            mine = {self._made[name] for name in bases if name in self._made}
            for name in bases:
                readers.setdefault(name, []).append(k)
            for out in line.outs:
                home = self._stretch.homes.get(out)
                if home is not None:
                    mine.update(readers.get(holds.get(home, home), ()))
                    holds[home] = out
            after.append(mine - {k})
        return after

    def _scheduled(self) -> list[Line]:
        done: set[int] = set(self._views)
        calls: list[Line] = []
        while len(done) < len(self._lines):
            before = len(done)
            for product in (True, False):
                ready = self._ready(done, product)
                if product:
                    calls += [call for k in ready for call in self._product(self._lines[k])]
                elif ready:
                    calls += self._between(ready, done)
                done.update(ready)
            if len(done) == before:
                raise AssertionError("lines that wait for one another")
        return calls

    def _ready(self, done: set[int], product: bool) -> list[int]:
        """Lines of one kind that can run now, one after the other."""
        found: dict[int, None] = {}
        for k in range(len(self._lines)):
            kind = (k in self._products) is product
            if k not in done and kind and all(n in done or n in found for n in self._after[k]):
                found[k] = None
        return list(found)

    # -- calls -----------------------------------------------------------------------------------
    def _name(self, name: str) -> str:
        """What a value is called outside of kernels."""
        return self._buffers.get(name) or self._stretch.homes.get(name, name)

    def _plain(self, line: Line) -> Line:
        return Line(tuple(map(self._name, line.outs)), line.text, tuple(map(self._name, line.reads)), line.constants)

    def _seen(self, line: Line) -> list[Line]:
        """The views that a line reads, as lines before it."""
        chain: dict[int, None] = {}
        todo = list(line.reads)
        while todo:
            k = self._made.get(todo.pop())
            if k in self._views and k is not None:
                chain[k] = None
                todo += self._lines[k].reads
        return [self._lines[k] for k in sorted(chain)]

    def _product(self, line: Line) -> list[Line]:
        plain = self._plain(line)
        views = [self._plain(view) for view in self._seen(line)]
        if line.text == ACCUMULATE:
            e, value, matrix = plain.reads
            return [*views, self._still("plus", line, value, matrix, e) or Line((), plain.text, plain.reads)]
        out = line.outs[0]
        if len(line.outs) == 1 and out in self._stretch.layouts and out not in self._stretch.homes:
            if (direct := into(plain, "")) is not None:
                self._buffers[out] = self._scratch.take(self._stretch.layouts[out])
                reads = (*direct.reads[:-1], self._buffers[out])
                call = self._still("times", line, *reads) if operator_name(line) == "mm" else None
                return [*views, call or Line((), direct.text, reads, direct.constants)]
        return [*views, plain]

    def _still(self, method: str, line: Line, value: str, matrix: str, out: str) -> Line | None:
        """A product with a matrix that stands still, which may be packed before the steps."""
        layout = self._stretch.layouts.get(line.outs[0])
        names = (matrix, matrix.removeprefix("v_"))  # itself, or turned
        if layout is None or layout.device.type != "cpu" or self._stretch.still.isdisjoint(names):
            return None
        right, function = f"right_{matrix}", fresh_name()
        self._scratch.once(Line((right,), f"{function}(%s)", (matrix,), ((function, RightHand),)))
        return Line((), f"%s.{method}(%s, %s, steps - t)", (right, value, out))

    def _between(self, group: Sequence[int], done: set[int]) -> list[Line]:
        """Lines that are no products, as one kernel if they are worth it."""
        inside = set(group)
        made = {out for k in group for out in self._lines[k].outs}
        later = [line for k, line in enumerate(self._lines) if k not in inside and k not in done]
        used = set(self._stretch.homes).union(*map(self._bases, later))
        outs = tuple(out for k in group for out in self._lines[k].outs if out in used)
        views = {self._made[out] for k in group for view in self._seen(self._lines[k]) for out in view.outs}
        lines = [self._lines[k] for k in sorted(inside | views)]
        if sum(map(weight, lines)) < 2:
            return [self._alone(line) for line in lines]
        made.update(out for k in views for out in self._lines[k].outs)
        reads = list(dict.fromkeys(read for line in lines for read in line.reads if read not in made))
        names = list(map(self._name, reads))
        places: list[int | None] = []
        for out in outs:
            home = self._stretch.homes.get(out)
            if home in self._stretch.owned and home is not None:
                if home not in names:
                    reads.append(home)
                    names.append(home)
                places.append(names.index(home))
            else:
                places.append(None)
        call = self._kernel(Region(tuple(lines), tuple(reads), outs), tuple(places))
        fresh = tuple(self._name(out) for out, place in zip(outs, places, strict=True) if place is None)
        return [Line(fresh, call.text, tuple(names), call.constants)]

    def _alone(self, line: Line) -> Line:
        """A line by itself, into the memory of its home where that is the program's."""
        plain = self._plain(line)
        if len(plain.outs) == 1 and plain.outs[0] in self._stretch.owned:
            direct = into(plain, plain.outs[0])
            if direct is not None:
                return direct
        return plain
