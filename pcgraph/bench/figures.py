"""From times to medians, quartiles and ratios: plain data that JSON can hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .names import AGAIN, BASE, CONTENDERS

CONTROL = 0.02
"""How far backprop may be from itself before the run counts as disturbed."""
_COMPILED = (
    *("pcgraph", "pcgraph step", "pcgraph low", "il", "torch.compile"),
    *("inductor", "inductor step", "inductor sgd", "inductor il"),
)


@dataclass
class Collected:
    """What is known of one model so far.

    Attributes:
        ready: by contender, its check, seconds of the first step, and of pcgraph the graph's size.
        not_run: by contender, why.
        rounds: by round and contender, seconds by clock.
        peaks: by contender, bytes.
        failed: why there is nothing at all, or "".
        interrupted: the user stopped it.
    """

    ready: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)
    peaks: dict[str, int] = field(default_factory=dict)
    failed: str = ""
    interrupted: bool = False


def figures(model: str, title: str, found: Collected) -> dict[str, Any]:
    """All figures of one model.

    Returns:
        ``model, title, rounds, failed, interrupted, contenders``. A contender that was run has ``check``, ``runs``,
        ``seconds`` and ``ratio`` (each by clock: ``median, low, high``), ``compile_seconds``, ``vertices``, ``depth``,
        ``stages``, ``peak_bytes`` and ``peak_ratio``, None where there is none; another has ``not_run``, the reason.
        The median of a ratio is the ratio of the medians, in the rounds that both ran in; its quartiles are those of
        the ratios within the rounds.
    """
    contenders: dict[str, Any] = {}
    for key in CONTENDERS:
        if key in found.not_run:
            contenders[key] = {"not_run": found.not_run[key]}
        elif key in found.ready:
            contenders[key] = _contender(key, found)
    result = {
        "model": model,
        "title": title,
        "rounds": len(found.rounds),
        "failed": found.failed,
        "interrupted": found.interrupted,
        "contenders": contenders,
    }
    return finite(result)


def summary(result: dict[str, Any]) -> str:
    """One line on a model that is done."""
    if result["failed"]:
        return f"{result['model']}: not run ({result['failed']})"
    ratios = [
        f"{key} {one['ratio']['wall']['median']:.3f}" if one.get("ratio") else f"{key} not run"
        for key, one in result["contenders"].items()
        if key != BASE
    ]
    rounds = f"{result['model']}: {result['rounds']} rounds"
    return f"{rounds}; {', '.join(ratios)}" if ratios else rounds


def control(result: dict[str, Any]) -> float | None:
    """How far backprop was from itself, as a part of its time; None if that was not measured."""
    again = result["contenders"].get(AGAIN, {})
    return abs(again["ratio"]["wall"]["median"] - 1) if again.get("ratio") else None


def finite(value: Any) -> Any:
    """The same data with None for every number that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _contender(key: str, found: Collected) -> dict[str, Any]:
    ready, peak, base_peak = found.ready[key], found.peaks.get(key), found.peaks.get(BASE)
    rounds = [one for one in found.rounds if key in one and BASE in one]
    clocks = list(rounds[0][key]) if rounds else []
    times = {clock: [one[key][clock] for one in rounds] for clock in clocks}
    base = {clock: [one[BASE][clock] for one in rounds] for clock in clocks}
    result: dict[str, Any] = {
        "check": ready["check"],
        "runs": len(rounds),
        "seconds": {clock: _spread(times[clock]) for clock in clocks},
        "ratio": {clock: _ratio(times[clock], base[clock]) for clock in clocks},
        "compile_seconds": None,
        "vertices": ready.get("vertices"),
        "depth": ready.get("depth"),
        "stages": ready.get("stages"),
        "peak_bytes": peak,
        "peak_ratio": peak / base_peak if peak is not None and base_peak else None,
    }
    if key in _COMPILED:
        steady = statistics.median(times["wall"]) if rounds else 0.0
        result["compile_seconds"] = max(0.0, ready["first"] - steady)
    return result


def _spread(values: Sequence[float]) -> dict[str, float]:
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def _ratio(times: Sequence[float], base: Sequence[float]) -> dict[str, float]:
    within = _spread([a / b if b else math.inf for a, b in zip(times, base, strict=True)])
    whole = statistics.median(base)
    return within | {"median": statistics.median(times) / whole if whole else math.inf}
