"""Bytes that a program holds at each of its lines, known before it runs.

Names are followed to the memories behind them: a view costs nothing, and a memory is free when the last name that
sees it is. What exists before the program runs (inputs, parameters, buffers) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..graph.vertex import TensorSpec
from .cost import Costs, Effect, Value, external, nbytes
from .lines import Line

Memories = tuple[int, ...]


class Ledger:
    """Which memories are behind which names.

    Attributes:
        values: what each name stands for.
        memories: memories behind each name, without repetition.
        size: bytes by memory; 0 for what comes from outside.
    """

    def __init__(self, costs: Costs) -> None:
        self.values: dict[str, Value] = {}
        self.memories: dict[str, Memories] = {}
        self.size: list[int] = []
        self._parts: dict[str, tuple[int | None, ...]] = {}
        self.costs = costs

    def enter(self, name: str, spec: TensorSpec, *, counts: bool = False) -> None:
        """A tensor from outside; an arriving error counts."""
        value = external(spec)
        self.values[name] = value
        self._bind(name, (self._new(nbytes(spec) if counts else 0),))

    def fork(self, names: Iterable[str]) -> Ledger:
        """A ledger of another function, which is handed these names."""
        twin = Ledger(self.costs)
        twin.size = list(self.size)
        for name in names:
            twin.values[name] = self.values[name]
            twin.memories[name], twin._parts[name] = self.memories[name], self._parts[name]
        return twin

    def run(self, line: Line, effect: Effect | None = None) -> Effect:
        """Enter what a line makes; `effect` if it is known."""
        if effect is None:
            effect = self.costs.effect(line, [self.values[read] for read in line.reads])
        made: dict[int, int] = {}
        for out, value in zip(line.outs, effect.values, strict=True):
            self.values[out] = value
            parts: list[int | None] = []
            for part in value.parts:
                if part is None:
                    parts.append(None)
                elif part.source is not None:
                    read, item = part.source
                    parts.append(self._parts[line.reads[read]][item])
                else:
                    if part.group not in made:
                        made[part.group] = self._new(part.bytes)
                    parts.append(made[part.group])
            self._bind(out, tuple(parts))
        return effect

    def _new(self, size: int) -> int:
        self.size.append(size)
        return len(self.size) - 1

    def _bind(self, name: str, parts: tuple[int | None, ...]) -> None:
        self._parts[name] = parts
        self.memories[name] = tuple(dict.fromkeys(m for m in parts if m is not None))


def live(
    ledger: Ledger, lines: Sequence[Line], workspaces: Sequence[int], given: Iterable[str], kept: Iterable[str]
) -> list[int]:
    """Bytes held while each line runs, by a function that frees every name after its last use.

    Args:
        ledger: with all names of the lines.
        lines: the body.
        workspaces: bytes that each line's kernels need.
        given: names that the function is handed.
        kept: names that it returns.
    """
    forever = set(kept)
    last: dict[str, int] = {name: -1 for name in given}
    for index, line in enumerate(lines):
        for name in (*line.reads, *line.outs):
            last[name] = index
    dying: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in forever:
            dying.setdefault(index, []).append(name)
    holders: dict[int, int] = {}
    held, peaks = 0, []

    def hold(names: Iterable[str], change: int) -> int:
        bytes_held = 0
        for name in names:
            for memory in ledger.memories.get(name, ()):
                before = holders.get(memory, 0)
                holders[memory] = before + change
                if before == 0 or before + change == 0:
                    bytes_held += change * ledger.size[memory]
        return bytes_held

    held += hold(given, 1)
    held += hold(dying.get(-1, ()), -1)
    for index, line in enumerate(lines):
        held += hold(line.outs, 1)
        peaks.append(held + workspaces[index])
        held += hold(dying.get(index, ()), -1)
    return peaks
