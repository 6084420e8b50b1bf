"""One thing to be measured, and what was found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Tell = Callable[[str], None]
Numbers = Mapping[str, Any]


class NotRun(Exception):
    """A cell cannot be measured here, and why: ``NotRun("data not available: ...")``."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        full: everything, for hours; otherwise what fits into minutes.
        seed: of weights, data order and environments.
        data: folder of data sets; None: where the system keeps them.
        games: Atari games.
        il_steps: T of inference learning, where it is timed.
    """

    full: bool = False
    seed: int = 0
    data: Path | None = None
    games: tuple[str, ...] = ("Pong", "Breakout", "Boxing")
    il_steps: int = 20

    @property
    def source(self) -> dict[str, str]:
        """What tells one folder of data from another in a cell's settings, without saying where it is.

        >>> Settings().source
        {}
        """
        if self.data is None:
            return {}
        return {"data": hashlib.sha256(str(self.data.resolve()).encode()).hexdigest()[:12]}


@dataclass(frozen=True)
class Cell:
    """A measurement.

    Attributes:
        experiment: whose table it belongs to.
        name: unique in the experiment, such as ``"MLP, 2 hidden layers"``.
        measure: makes the numbers, which must be what JSON can hold; may tell how far it is, in a line of text.
            Raises `NotRun` where something is missing.
        settings: everything that the numbers depend on, as JSON; other settings are another cell.
        packages: whose versions count beside those of Python, torch and pcgraph.
    """

    experiment: str
    name: str
    measure: Callable[[Tell], Numbers] = field(compare=False)
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    packages: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What a kept result must agree in to be taken for this cell's."""
        return json.dumps([self.experiment, self.name, self.settings], sort_keys=True)


@dataclass(frozen=True)
class Found:
    """What became of a cell.

    Attributes:
        key: of the cell.
        experiment: of the cell.
        name: of the cell.
        numbers: that were measured; empty if it was not run.
        not_run: why not, or "".
        seconds: that it took.
        date: ISO date.
        versions: of pcgraph, torch, Python and the cell's packages.
    """

    key: str
    experiment: str
    name: str
    numbers: Numbers
    not_run: str = ""
    seconds: float = 0.0
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One table or figure.

    Attributes:
        name: on the command line.
        title: above the table.
        source: in the paper.
        cells: of these settings.
        table: Markdown of what was found, in the order of the cells.
        draw: writes pictures into a folder and returns their names; needs matplotlib.
    """

    name: str
    title: str
    source: str
    cells: Callable[[Settings], list[Cell]]
    table: Callable[[list[Found]], str]
    draw: Callable[[list[Found], Path], list[str]] | None = None


def rows(found: list[Found], columns: Mapping[str, str], first: str = "") -> str:
    """A Markdown table: a row per cell, a column per number, ``{title: key}``; marks what was not run."""
    lines = [f"| {first} | {' | '.join(columns)} |", f"| --- |{' --: |' * len(columns)}"]
    for item in found:
        if item.not_run:
            lines.append(f"| {item.name} | not run: {item.not_run} |{' |' * (len(columns) - 1)}")
        else:
            lines.append(f"| {item.name} | {' | '.join(shown(item.numbers.get(key)) for key in columns.values())} |")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """A number as a table shows it.

    >>> shown(0.0), shown(1.23456), shown(1e-9), shown(True), shown(None), shown(12)
    ('0', '1.235', '1e-09', 'yes', '', '12')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
