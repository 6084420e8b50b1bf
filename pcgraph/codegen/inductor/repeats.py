"""Repetition: stretches that consist of the same lines over and over are cut where they repeat.

A network of a thousand layers or time steps is then one region, compiled once and called a thousand times.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..lines import Line
from .regions import line_key

LONGEST = 200  # lines of a region, about
_REPEATS = 8  # that make a repetition worth it
_TOGETHER = 60  # lines of one region within a repetition, about
_LONGEST_PERIOD = 1000


def cut(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines in pieces that can be compiled one by one."""
    codes = _codes(lines)
    return [list(lines[a:b]) for a, b in _pieces(lines, codes, 0, len(lines)) if a < b]


def _codes(lines: Sequence[Line]) -> np.ndarray[Any, np.dtype[np.int64]]:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(line_key(line), len(numbers)) for line in lines], dtype=np.int64)


def _pieces(lines: Sequence[Line], codes: Any, start: int, end: int) -> Iterator[tuple[int, int]]:
    found = _repetition(codes[start:end])
    if found is None:
        yield from _plain(lines, start, end)
        return
    period, first, last = found[0], found[1] + start, found[2] + start
    first, repeats = _phase(lines, period, first, last)
    several = _several(period, repeats)
    yield from _pieces(lines, codes, start, first)
    stop = first + repeats * period
    for a in range(first, stop, several * period):
        yield a, min(a + several * period, stop)
    yield from _pieces(lines, codes, stop, end)


def _repetition(codes: Any) -> tuple[int, int, int] | None:
    """Period, begin and end of the longest repetition, or None."""
    best: tuple[int, int, int] | None = None
    longest = min(_LONGEST_PERIOD, len(codes) // _REPEATS)
    for period in range(2, longest + 1):
        begin, length = _longest_run(codes[period:] == codes[:-period])
        if length + period < _REPEATS * period:
            continue
        if best is None or length + period > 1.1 * (best[2] - best[1]):
            best = (period, begin, begin + length + period)
    return best


def _longest_run(same: Any) -> tuple[int, int]:
    """Begin and length of the longest run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    if not len(edges):
        return 0, 0
    lengths = edges[1::2] - edges[::2]
    k = int(np.argmax(lengths))
    return int(edges[2 * k]), int(lengths[k])


def _phase(lines: Sequence[Line], period: int, first: int, last: int) -> tuple[int, int]:
    """Where to begin, so that few values pass from one piece to the next; and how many periods there are then."""
    made = {out: k for k, line in enumerate(lines) for out in line.outs}
    middle = first + ((last - first) // period // 2) * period
    crossing = [0] * (period + 1)
    for k in range(middle, min(last, middle + 2 * period)):
        for name in set(lines[k].reads):
            for cut_ in range(max(made.get(name, k) + 1, middle), min(k, middle + period - 1) + 1):
                crossing[cut_ - middle] += 1
    offset = min(range(period), key=lambda o: (crossing[o], o))
    return first + offset, (last - first - offset) // period


def _several(period: int, repeats: int) -> int:
    """How many periods make one piece: a divisor if there is one of a good size."""
    most = max(1, min(_TOGETHER // period, repeats // 2))
    for several in range(most, most // 2, -1):
        if repeats % several == 0:
            return several
    return most


def _plain(lines: Sequence[Line], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Pieces of about the same length, each result with several parts together with its parts."""
    count = -(-(end - start) // LONGEST)
    size = -(-(end - start) // max(count, 1))
    while start < end:
        stop = min(start + size, end)
        while stop < end and lines[stop].target is not None and _item(lines[stop]):
            stop += 1
        yield start, stop
        start = stop


def _item(line: Line) -> bool:
    return line.target is operator.getitem
