"""A bar on the terminal, for inference that takes long."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

Progress = Callable[[int, int], None]


def bar() -> Progress:
    """What to call with (t, T); shown on standard error while t < T, and only on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("inference"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = shown.add_task("inference")
    shown.start()

    def advance(t: int, steps: int) -> None:
        shown.update(task, completed=t, total=steps)
        if t >= steps:
            shown.stop()

    return advance
