"""What the pictures of experiments share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cell import Found


def panels(found: list[Found], file: Path, lines: Callable[[Any, dict[str, Any]], None], **labels: str) -> list[str]:
    """A panel for every cell that was measured, side by side; `lines` draws one onto axes, from its numbers.

    Returns:
        The file's name, or nothing if no cell was measured.
    """
    from matplotlib.figure import Figure

    run = [item for item in found if not item.not_run]
    if not run:
        return []
    figure = Figure(figsize=(4 * len(run), 3.2), layout="constrained")
    for axes, item in zip(figure.subplots(1, len(run), squeeze=False)[0], run, strict=True):
        lines(axes, dict(item.numbers))
        axes.set(title=item.name, **labels)
        axes.legend()
    figure.savefig(file, dpi=150)
    return [file.name]
