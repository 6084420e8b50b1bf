"""Long programs in several functions, so that Python compiles 100,000 vertices in little memory.

One function for all of them would have as many local variables, and Python's compiler would hold all of its syntax
tree at once. So a program is cut every so many lines. What one function makes and a later one reads lies meanwhile in
a list, ``held``, in which every such value has a place of its own. A function takes out what it reads, empties the
places of values that nothing reads after it, and drops each of those behind the line that uses it last: a value
lives exactly as long as it would in one function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .lifetimes import deletion, dying, last_uses
from .lines import Line

_HELD = "held"
_ROW = 12  # places that one line of source takes out or puts back


class Chunked:
    """A program, cut.

    Args:
        arguments: per argument, its name and the names in its list.
        lines: the program.
        returns: per returned list, the names in it.
        size: lines of each function.
    """

    def __init__(
        self,
        arguments: Sequence[tuple[str, Sequence[str]]],
        lines: Sequence[Line],
        returns: Sequence[tuple[str, ...]],
        size: int,
    ) -> None:
        self._lines, self._size = lines, size
        self._kept = {item for group in returns for item in group}
        self._last = last_uses(lines)
        self._dead = dying(self._last, self._kept)
        given = [name for _, names in arguments for name in names]
        self._unread = [name for name in given if name not in self._last and name not in self._kept]
        self._given = len(given)
        self._places = {name: place for place, name in enumerate(given)}
        self._since = dict.fromkeys(given, -1)  # the line that makes a name first
        for index, line in enumerate(lines):
            end = index - index % size + size
            for out in line.outs:
                self._since.setdefault(out, index)
                if self._lives_on(out, end):
                    self._places.setdefault(out, len(self._places))
        self._places.setdefault("None", len(self._places))
        self._groups = [[self._places[name] for name in group] for group in returns]

    def _lives_on(self, name: str, end: int) -> bool:
        return self._last[name] >= end or name in self._kept

    def sources(self, name: str) -> Iterator[str]:
        """Source of one function after the other, ``def name_0(held)``, ..."""
        for number, start in enumerate(range(0, len(self._lines), self._size)):
            yield f"def {name}_{number}({_HELD}):\n  " + "\n  ".join(self._body(start)) + "\n"

    def _body(self, start: int) -> list[str]:
        end = start + self._size
        lines = self._lines[start:end]
        taken: dict[str, None] = {}  # in the order in which they are read
        made: dict[str, None] = {}
        for line in lines:
            taken.update((read, None) for read in line.reads if read not in made)
            made.update((out, None) for out in line.outs)
        # A checkpoint makes names once more that have places already: what lies there is read no more.
        before = [name for name in (taken | made) if self._since[name] < start and name in self._places]
        emptied = [name for name in before if name in made or not self._lives_on(name, end)]
        body = [f"{names} = {places}" for names, places in self._rows(list(taken))]
        body += [f"{places} = None" for places in self._each([*emptied, *(self._unread if start == 0 else ())])]
        for index, line in enumerate(lines, start):
            body.append(line.render())
            body += deletion(self._dead.get(index, ()))
        body += [f"{places} = {names}" for names, places in self._rows([n for n in made if self._lives_on(n, end)])]
        return body

    def _rows(self, names: list[str]) -> Iterator[tuple[str, str]]:
        """Names and their places, as the two sides of assignments."""
        for at in range(0, len(names), _ROW):
            row = names[at : at + _ROW]
            yield ", ".join(row), ", ".join(f"{_HELD}[{self._places[name]}]" for name in row)

    def _each(self, names: list[str]) -> Iterator[str]:
        """Places of names, as targets of one assignment."""
        for at in range(0, len(names), _ROW):
            yield " = ".join(f"{_HELD}[{self._places[name]}]" for name in names[at : at + _ROW])

    def join(self, parts: Sequence[Callable[[list[Any]], None]]) -> Callable[..., Any]:
        """The whole program, of its functions: argument lists in (they are emptied), returned lists out."""
        given, empty, groups = self._given, [None] * (len(self._places) - self._given), self._groups

        def run(*arguments: list[Any]) -> Any:
            held: list[Any] = []
            for argument in arguments:
                held += argument
                argument.clear()
            if len(held) != given:
                raise ValueError(f"{given} values expected, {len(held)} given")
            held += empty
            for part in parts:
                part(held)
            results = [list(map(held.__getitem__, group)) for group in groups]
            return results if len(results) > 1 else results[0]

        return run
