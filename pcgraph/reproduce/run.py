"""Measure the cells of experiments, one after the other, and write what was found."""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..machine import machine, versions
from .cell import Cell, Experiment, Found, NotRun, Settings, Tell
from .keep import Kept, replace

Step = Callable[[int, int, str], None]


def run(
    experiments: Sequence[Experiment],
    settings: Settings,
    output: Path,
    *,
    command: str = "",
    step: Step = lambda done, of, what: None,
    pictures: bool = True,
) -> dict[str, list[Found]]:
    """Measure what is not kept already, then write ``results.json``, ``results.md`` and the pictures.

    Args:
        experiments: in the order of the report.
        settings: how much.
        output: folder.
        command: that is named in the report.
        step: called with how many cells are done, of how many, and what is being measured.
        pictures: draw them, if matplotlib is installed.

    Returns:
        What was found, by experiment.

    Raises:
        PCGraphError: the folder cannot be written, or a data set is damaged.
    """
    kept = Kept(output)
    cells = {experiment.name: experiment.cells(settings) for experiment in experiments}
    total = sum(map(len, cells.values()))
    found: dict[str, list[Found]] = {name: [] for name in cells}
    done = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, of_experiment in cells.items():
            for cell in of_experiment:
                what = f"{name}: {cell.name}"
                step(done, total, what)
                now = versions(cell.packages)
                item = kept.get(cell, now)
                if item is None:
                    item = _measured(cell, now, _telling(step, done, total, what))
                    kept.add(item)
                found[name].append(item)
                done += 1
    finally:
        torch.set_num_threads(threads)
    step(total, total, "")
    _write(experiments, found, settings, output, command, pictures)
    return found


def _telling(step: Step, done: int, total: int, what: str) -> Tell:
    return lambda text: step(done, total, f"{what}: {text}")


def _measured(cell: Cell, now: dict[str, str], tell: Tell) -> Found:
    date = datetime.date.today().isoformat()
    start = time.perf_counter()
    try:
        numbers = {key: _plain(value) for key, value in cell.measure(tell).items()}
    except NotRun as reason:
        return Found(cell.key, cell.experiment, cell.name, {}, str(reason), 0.0, date, now)
    return Found(cell.key, cell.experiment, cell.name, numbers, "", round(time.perf_counter() - start, 2), date, now)


def _plain(value: Any) -> Any:
    """What JSON can hold: numbers that are none become words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _write(
    experiments: Sequence[Experiment],
    found: dict[str, list[Found]],
    settings: Settings,
    output: Path,
    command: str,
    pictures: bool,
) -> None:
    facts = {"command": command, "seed": settings.seed, "full": settings.full, "machine": machine(1)}
    report = {**facts, "cells": {name: [asdict(item) for item in items] for name, items in found.items()}}
    replace(output / "results.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    able = pictures and importlib.util.find_spec("matplotlib") is not None
    drawn = {one.name: _drawn(one, found[one.name], output) if able else [] for one in experiments}
    replace(output / "results.md", _markdown(experiments, found, facts, drawn))


def _drawn(experiment: Experiment, found: list[Found], output: Path) -> list[str]:
    measured = [item for item in found if not item.not_run]
    if experiment.draw is None or not measured:
        return []
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "pcgraph"}):
        return experiment.draw(measured, output)


def _markdown(
    experiments: Sequence[Experiment], found: dict[str, list[Found]], facts: dict[str, Any], drawn: dict[str, list[str]]
) -> str:
    dates = sorted({item.date for items in found.values() for item in items})
    used = {name: number for items in found.values() for item in items for name, number in item.versions.items()}
    lines = ["# Results", ""]
    lines.append("Written by `pcgraph reproduce`; do not edit. Every number was measured; what was not says so.")
    if facts["command"]:
        lines += ["", f"    {facts['command']}"]
    about = ", ".join(f"{name} {number}" for name, number in used.items())
    where, load = facts["machine"]["processor"], facts["machine"]["load"]
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else ""
    lines += ["", f"{about}. {where}, {facts['machine']['cores']} cores, load {load} at the end; one thread, seed"]
    lines += [f"{facts['seed']}. {when}."]
    for experiment in experiments:
        lines += ["", f"## {experiment.title}", f"*{experiment.source}*", "", experiment.table(found[experiment.name])]
        lines += [f"\n![{experiment.title}]({name})" for name in drawn[experiment.name]]
    if not any(drawn.values()):
        lines += [
            "",
            "No pictures: not asked for, nothing to show, or matplotlib is missing (pip install 'pcgraph[plot]').",
        ]
    seconds = sum(item.seconds for items in found.values() for item in items)
    return "\n".join([*lines, "", f"All cells together took {seconds:.0f} s."]) + "\n"


def differing(found: dict[str, list[Found]]) -> list[str]:
    """The cells in which Z-IL was not backprop to the bit."""
    exact = ("equal", "equal to the bit", "identical")
    cells = [item for items in found.values() for item in items]
    return [f"{item.experiment}: {item.name}" for item in cells if any(item.numbers.get(key) is False for key in exact)]
