"""Pictures of a trace, with matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import PCGraphError

if TYPE_CHECKING:
    from .trace import Trace

KINDS = ("energy", "wave", "distance")


def plot(trace: Trace, kind: str = "energy", ax: Any = None) -> Any:
    """Draw a trace.

    Args:
        trace: with what is drawn recorded.
        kind: ``"energy"``: total energy and loss over time; ``"wave"``: size of the errors by level and time
            (record "norms"); ``"distance"``: to backprop's gradient over time (record "distance").
        ax: matplotlib axes to draw on; a new figure if None.

    Returns:
        The axes.

    Raises:
        PCGraphError: matplotlib is not installed, no such kind, or what it shows was not recorded.
    """
    if kind not in KINDS:
        raise PCGraphError(f"kind={kind!r} is not known", hint=f"choose from {', '.join(KINDS)}")
    try:
        from matplotlib import pyplot
    except ImportError:
        raise PCGraphError("plots need matplotlib", hint="pip install pcgraph[plot]") from None
    needed = {"wave": ("norms", trace.norms), "distance": ("distance", trace.distance)}
    if kind in needed and not needed[kind][1]:
        record = needed[kind][0]
        raise PCGraphError(f"{record} were not recorded", hint=f"simulate with options={{'record': ({record!r},)}}")
    if ax is None:
        _, ax = pyplot.subplots(figsize=(7, 4), layout="constrained")
    {"energy": _energy, "wave": _wave, "distance": _distance}[kind](trace, ax)
    ax.set_xlabel("inference step t")
    ax.set_title(f"{type(trace.rule).__name__} on {trace.graph.name}")
    return ax


def levels(trace: Trace) -> list[list[float]]:
    """``[D+1][T+1]``: norm of all errors of a depth together, row d, over time."""
    rows = [[0.0] * (trace.steps + 1) for _ in range(max(trace.depth_of(name) for name in trace.norms) + 1)]
    for name, norms in trace.norms.items():
        row = rows[trace.depth_of(name)]
        for t, norm in enumerate(norms):
            row[t] = math.hypot(row[t], norm)
    return rows


def _energy(trace: Trace, ax: Any) -> None:
    ax.plot(trace.energies, label="energy F")
    ax.plot(trace.losses, label="loss of the outputs' predictions", linestyle="--")
    ax.set_ylabel("energy")
    if min(trace.energies + trace.losses) > 0 and max(trace.energies) > 100 * min(trace.energies):
        ax.set_yscale("log")
    ax.legend()


def _wave(trace: Trace, ax: Any) -> None:
    from matplotlib import colors

    rows = levels(trace)
    seen = [norm for row in rows for norm in row if 0 < norm < math.inf]
    if not seen:
        raise PCGraphError("no error was above 0", hint="give a target that differs from the prediction")
    scale = colors.LogNorm(max(min(seen), 1e-12 * max(seen)), max(seen)) if max(seen) > min(seen) else None
    masked = [[norm if 0 < norm < math.inf else math.nan for norm in row] for row in rows]
    image = ax.imshow(masked, aspect="auto", origin="lower", norm=scale, cmap="magma", interpolation="nearest")
    ax.set_ylabel("depth d (0: output)")
    ax.figure.colorbar(image, ax=ax, label="norm of the errors")


def _distance(trace: Trace, ax: Any) -> None:
    above = [value if 0 < value < math.inf else math.nan for value in trace.distance]
    ax.plot(above, marker=".")
    equal = [t for t, value in enumerate(trace.distance) if value == 0]
    for t in equal:
        ax.axvline(t, color="tab:green", linewidth=0.5, label="equal to the bit" if t == equal[0] else None)
    ax.set_yscale("log")
    ax.set_ylabel("distance to backprop's gradient")
    if equal:
        ax.legend()
