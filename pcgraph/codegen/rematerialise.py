"""Less memory: part of the prediction keeps nothing, and is evaluated once more right before its errors need it.

That is done line by line. What the prediction keeps is chosen by `budget`; here the lines are put in where learning
first reads what was not kept. Nothing else of learning changes, so neither do the bits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import replace

from .lines import Line
from .numerics import enter, enter_again, leave, numerics
from .prediction import Prediction
from .recompute import call_line
from .sweep import SegmentLines, VertexLines

INSIDE, OUTSIDE = "numerics", "numerics_outside"  # settings of the prediction, and those around learning


def settings_line() -> Line:
    """What the prediction does first: remember the settings that it runs under."""
    return call_line(numerics, (), INSIDE)


class Rematerialisation:
    """What is kept, and how to come by the rest.

    Args:
        prediction: all of its lines.
        kept: names that the prediction keeps if somebody reads them; what comes from outside is always there.
        borders: lines; what is evaluated on one side of them for the other side is only lent. It goes under a name of
            its own, and is evaluated again where its own side needs it.
    """

    def __init__(self, prediction: Prediction, kept: frozenset[str], borders: tuple[int, ...] = ()) -> None:
        self.prediction, self.kept, self.borders = prediction, kept, borders
        self._home = {vertex: bisect_right(borders, index) for index, vertex in enumerate(prediction.vertices)}

    def insert(self, segment: SegmentLines, bare: bool = False) -> SegmentLines:
        """The lines of a segment, and before them those of the prediction that they need.

        Args:
            segment: learning as if everything was kept.
            bare: leave the settings alone.
        """
        maker = self.prediction.maker
        there: set[str] = set(self.kept)
        parts: list[VertexLines] = []
        for part in segment.parts:
            missing = [read for line in part.lines for read in line.reads if read in maker and read not in there]
            if missing:
                lines = self._lent(
                    missing, self.prediction.closure(missing, there), self._home[part.vertex], len(parts)
                )
                again = self._parts(lines)
                there.update(out for p in again for line in p.lines for out in line.outs)
                parts += again if bare else self._under_settings(again, first=OUTSIDE not in there)
                there.add(OUTSIDE)
            parts.append(part)
            there.update(out for line in part.lines for out in line.outs)
        return replace(segment, parts=tuple(parts))

    def _lent(self, wanted: list[str], lines: list[int], home: int, number: int) -> list[tuple[int, Line]]:
        """The lines as they are evaluated for one side of a border; `number` tells the names of what is lent apart."""
        again = self.prediction.again
        beyond = [bisect_right(self.borders, index) < home for index in lines]
        seen = set(wanted).union(*(again(i).reads for i, lent in zip(lines, beyond, strict=True) if not lent))
        names = {
            out: f"lent{number}_{out}"
            for i, lent in zip(lines, beyond, strict=True)
            if lent
            for out in self.prediction.lines[i].outs
            if out not in seen
        }
        if not names:
            return [(i, again(i)) for i in lines]
        return [(i, again(i).renamed(_Renamed(names))) for i in lines]

    def _parts(self, lines: Iterable[tuple[int, Line]]) -> list[VertexLines]:
        """Lines by vertex."""
        parts: list[VertexLines] = []
        for index, line in lines:
            vertex = self.prediction.vertices[index]
            if parts and parts[-1].vertex == vertex:
                parts[-1] = replace(parts[-1], lines=(*parts[-1].lines, line))
            else:
                parts.append(VertexLines(vertex, (line,), again=True))
        return parts

    def _under_settings(self, again: list[VertexLines], first: bool) -> list[VertexLines]:
        """The parts, run as the prediction ran them."""
        begin = call_line(enter, (INSIDE,), OUTSIDE) if first else call_line(enter_again, (OUTSIDE, INSIDE), None)
        end = call_line(leave, (OUTSIDE, INSIDE), None)
        before = VertexLines(again[0].vertex, (begin,), again=True)
        return [before, *again, VertexLines(again[-1].vertex, (end,), again=True)]


class _Renamed(dict[str, str]):
    """Other names for some; the others keep theirs."""

    def __missing__(self, name: str) -> str:
        return name
