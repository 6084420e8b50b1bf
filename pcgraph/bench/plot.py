"""The ratios as a picture. matplotlib comes with the extra ``plot`` and is imported when a plot is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import PCGraphError
from .names import BASE, CONTENDERS

SUFFIXES = (".png", ".svg")


def check(path: Path) -> None:
    """Raise `PCGraphError`, before anything is measured, if no plot can be written to `path`."""
    if path.suffix not in SUFFIXES:
        raise PCGraphError(f"a plot cannot be written to {path.name}", hint="name a file that ends in .png or .svg")
    if importlib.util.find_spec("matplotlib") is None:
        raise PCGraphError("a plot needs matplotlib, which is not installed", hint="pip install 'pcgraph[plot]'")


def write(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Ratios to eager backprop, a line a model, a mark a contender with its quartiles; the axis is logarithmic."""
    check(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    shown = [result for result in results if result["contenders"]]
    keys = [k for k in CONTENDERS if k != BASE and any(r["contenders"].get(k, {}).get("ratio") for r in shown)]
    figure = Figure(figsize=(8, 1.6 + 0.12 * max(1, len(shown)) * (len(keys) + 2)), layout="constrained")
    axes = figure.add_subplot()
    for j, key in enumerate(keys):
        places, middles, lows, highs = [], [], [], []
        for k, result in enumerate(shown):
            ratio = result["contenders"].get(key, {}).get("ratio", {}).get("wall")
            if ratio:
                places.append(k + 0.8 * (j + 0.5) / len(keys) - 0.4)
                middles.append(ratio["median"])
                lows.append(max(0.0, ratio["median"] - ratio["low"]))
                highs.append(max(0.0, ratio["high"] - ratio["median"]))
        axes.errorbar(middles, places, xerr=[lows, highs], fmt="o", markersize=4, capsize=2, label=key)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("time of a training step over eager backprop's (median, quartiles)")
    axes.set_yticks(range(len(shown)), [result["model"] for result in shown])
    axes.invert_yaxis()
    axes.grid(axis="x", which="both", linewidth=0.3)
    figure.legend(loc="outside upper center", ncols=4, fontsize="small")
    canvas = FigureCanvasSVG(figure) if path.suffix == ".svg" else FigureCanvasAgg(figure)
    canvas.print_figure(path, format=path.suffix[1:])
