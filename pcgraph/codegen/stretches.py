"""Which levels of inference are put together, how they are written, and when they may begin to run together.

Errors come to one level after the other. A stretch runs as a whole as soon as one has come to its first level: an
error of 0 moves nothing, so the levels behind it stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..graph import Ref, TensorSpec
from ..schedule import NEVER, Lags
from .backends import Backend
from .buffers import Scratch
from .cells import Cells
from .lines import Line
from .moves import Moves
from .steps import awake, difference
from .stretch import Writer
from .sweep import error_name

LEVELS = 8  # at most in a stretch


class Stretches:
    """Stretches of one program.

    Args:
        cells: names and layouts.
        levels: vertices by depth, the last one first.
        inputs: clamped inputs that collect an error.
        lags: what matters for how long.
        still: names of values that do not move.
        again: whether a vertex predicts anew at every step.
        backend: what becomes of a stretch.

    Attributes:
        depths: of each stretch; a level that cannot be part of one is by itself.
        rates: names of gamma as a number of some type, which the calls read.
    """

    def __init__(
        self,
        cells: Cells,
        levels: Mapping[int, Sequence[Moves]],
        inputs: Sequence[Ref],
        lags: Lags,
        still: frozenset[str],
        again: Callable[[str], bool],
        backend: Backend,
    ) -> None:
        self._cells, self._levels, self._inputs, self._lags = cells, levels, inputs, lags
        self._still, self._again, self._backend = still, again, backend
        everyone = [m for here in levels.values() for m in here]
        self._predictions = {ref: mu for m in everyone for ref, mu in zip(m.refs, m.predictions, strict=True)}
        self._needed = _needed(everyone)
        graph = cells.graph
        self._held = frozenset(
            mu
            for ref, mu in self._predictions.items()
            if not all(use.child in graph.depth for use in graph.uses[ref.vertex])
        )
        self.rates: dict[str, TensorSpec] = {}
        self.depths = self._together()

    def deeper(self, depth: int) -> list[Ref]:
        """Values that hear of the errors at a depth."""
        found = [ref for moves in reversed(self._levels.get(depth + 1, ())) for ref in moves.refs]
        return found + [ref for ref in self._inputs if self._cells.graph.depth[ref.vertex] == depth + 1]

    def _together(self) -> list[list[int]]:
        """Levels from one that pulls by a product to before the next."""
        found: list[list[int]] = []
        joins = False  # whether the level before may be joined
        for depth, here in self._levels.items():
            lines = [line for moves in here for line in (*moves.pull, *moves.again)]
            pure = all(map(self._backend.takes, lines))
            heavy = any(self._backend.multiplies(line) for moves in here for line in moves.pull)
            if pure and joins and not heavy and len(found[-1]) < LEVELS:
                found[-1].append(depth)
            else:
                found.append([depth])
            joins = pure
        return found

    def calls(self, depths: Sequence[int], scratch: Scratch) -> list[Line] | None:
        """The lines of a stretch; None if its levels stay as they are."""
        here = [moves for depth in depths for moves in self._levels[depth]]
        if not all(self._backend.takes(line) for moves in here for line in (*moves.pull, *moves.again)):
            return None
        writer = Writer(self._cells, self._predictions, self._needed, self._still, self._held)
        for depth in depths:
            for moves in self._levels[depth]:
                if self._lags.pulls[moves.vertex] < NEVER:
                    writer.pull(moves)
            for ref in self.deeper(depth):
                if self._lags.values[ref.vertex] < NEVER:
                    writer.move(ref)
            for moves in self._levels[depth]:
                if self._lags.errors[moves.vertex] < NEVER:
                    writer.predict(moves, self._again(moves.vertex))
        calls = self._backend.stretch(writer.stretch, scratch)
        if calls is not None:
            self.rates.update(writer.stretch.rates)
            scratch.views(calls)
        scratch.free()
        return calls

    def early(self, depths: Sequence[int]) -> bool:
        """Whether an error of 0 is known to move nothing: no slope is infinite, as that of a root is at 0."""
        vertices = [moves.vertex for depth in depths for moves in self._levels[depth]]
        return not self._cells.unbounded.intersection(vertices)

    def wake(self, depths: Sequence[int]) -> list[Line]:
        """The values that a stretch moves, and their errors, before its first step: in memory of their own."""
        lines: list[Line] = []
        for ref in (ref for depth in depths for ref in self.deeper(depth)):
            mu = self._predictions.get(ref)
            if mu is None:
                lines.append(Line((error_name(ref),), "torch.zeros_like(%s)", (self._cells.values[ref],)))
            else:
                lines += awake(self._cells, ref, mu)
        return lines

    def arrive(self, depths: Sequence[int]) -> list[Line]:
        """The errors of values behind the last level, at the step that moves these values for the first time."""
        pairs = [(ref, self._predictions.get(ref)) for ref in self.deeper(depths[-1])]
        return [line for ref, mu in pairs if mu is not None for line in difference(self._cells, ref, mu)[1]]


def _needed(everyone: Sequence[Moves]) -> frozenset[str]:
    """What lines of a vertex read that other lines of it have made before: it has to live on."""
    found: set[str] = set()
    for moves in everyone:
        for lines in (moves.again, moves.pull, moves.learn):
            made: set[str] = set()
            for line in lines:
                found.update(name for name in line.reads if name not in made)
                made.update(line.outs)
    return frozenset(found)
