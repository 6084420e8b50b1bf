"""Regions: stretches of lines that can be compiled as one, and what goes in and out of them."""

from __future__ import annotations

import operator
import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..kinds import freeze
from ..lines import Line
from .fusable import fusable, operator_name, weight
from .merge import Merged

_CONSTANT = re.compile(r"\bk\d+\b")


@dataclass(frozen=True)
class Region:
    """Lines to be compiled as one.

    Attributes:
        lines: in order.
        reads: names from before, in the order of their first use.
        outs: names that are used after.
    """

    lines: tuple[Line, ...]
    reads: tuple[str, ...]
    outs: tuple[str, ...]

    def canonical(self) -> tuple[Region, Any]:
        """The same region over names that tell nothing of where it stands, and a key of it.

        Regions of one key are the same computation: of two time steps, of two blocks of a transformer.
        """
        names: dict[str, str] = {name: f"a{i}" for i, name in enumerate(self.reads)}
        for line in self.lines:
            for out in line.outs:
                names.setdefault(out, f"v{len(names)}")
        lines = tuple(line.renamed(names) for line in self.lines)
        outs = tuple(names[out] for out in self.outs)
        region = Region(lines, tuple(names[name] for name in self.reads), outs)
        return region, (tuple((line.outs, line_key(line), line.reads) for line in lines), region.reads, outs)


def line_key(line: Line) -> Any:
    """What a line calls, without the names that it reads and assigns."""
    constants = dict(line.constants)
    text = _CONSTANT.sub(lambda match: "k" if match.group() in constants else match.group(), line.text)
    order = [constants[name] for name in _CONSTANT.findall(line.text) if name in constants]
    return (text, tuple(map(freeze, order)), line.target, len(line.outs))


def region_of(lines: Sequence[Line], used: Collection[str]) -> Region:
    """Lines as a region; `used` has the names that somebody reads after them."""
    made: dict[str, None] = {}
    reads: dict[str, None] = {}
    for line in lines:
        reads.update((name, None) for name in line.reads if name not in made)
        made.update((name, None) for name in line.outs)
    return Region(tuple(lines), tuple(reads), tuple(name for name in made if name in used))


def gathered(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines as stretches that are fusable as a whole, and single lines that are not.

    A line that is not fusable goes before the stretch that it stands in if it reads nothing of it and has no effect on
    anything there; otherwise the stretch ends.
    """
    result: list[list[Line]] = []
    stretch: list[Line] = []
    made: set[str] = set()
    for line in lines:
        part = line.target is operator.getitem and line.reads[0] not in made  # of what is not compiled
        aside = operator_name(line) == "unbind" and made.isdisjoint(line.reads)  # so that others can go aside as well
        if fusable(line) and not part and not aside:
            stretch.append(line)
            made.update(line.outs)
        elif line.outs and made.isdisjoint(line.reads) and _without_effect(line):
            result.append([line])
        else:
            if stretch:
                result.append(stretch)
            result.append([line])
            stretch, made = [], set()
    if stretch:
        result.append(stretch)
    return result


def _without_effect(line: Line) -> bool:
    """Whether a line may be evaluated earlier. Random draws may: they keep their order among each other."""
    target: Any = line.target
    if target is Merged or target is operator.getitem or operator_name(line) == "unbind":
        return True
    schema = getattr(target, "_schema", None)
    return schema is not None and not schema.is_mutable and "batch_norm" not in schema.name


def worth_it(lines: Sequence[Line]) -> bool:
    """Whether compiling a stretch can gain anything."""
    return sum(map(weight, lines)) >= 2


def sunk(parts: Sequence[list[Line]]) -> list[list[Line]]:
    """Merged lines moved down to just before their first reader, so that what they make does not wait for long."""
    reader: dict[str, int] = {}
    for k, part in enumerate(parts):
        for line in part:
            for name in line.reads:
                reader.setdefault(name, k)
    before: dict[int, list[list[Line]]] = {}
    moved: set[int] = set()
    effects = [k for k, part in enumerate(parts) if not all(fusable(line) or _without_effect(line) for line in part)]
    for k in reversed(range(len(parts))):  # what a moved line reads moves along
        line = parts[k][0]
        if line.target is Merged and line.outs:
            places = [reader[out] for out in line.outs if out in reader]
            after = bisect_right(effects, k)
            place = min([*places, *effects[after : after + 1]]) if places else k
            if place > k:
                moved.add(k)
                before.setdefault(place, []).insert(0, parts[k])
                reader.update((name, place) for name in line.reads if reader[name] == k)
    return [p for k, part in enumerate(parts) for p in (*before.get(k, ()), *([] if k in moved else [part]))]
