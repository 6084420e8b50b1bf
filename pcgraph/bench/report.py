"""The figures as a table for people, as JSON for programs, as Markdown for the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import PCGraphError
from .figures import CONTROL, control
from .names import AGAIN, BASE, CONTENDERS, MODELS

_NONE = "-"
_COLUMNS = ("contender", "ms", "ratio [quartiles]", "CPU", "MiB", "memory", "compile", "runs", "check")
_WIDTHS = (14, 6, 18, 5, 5, 6, 7, 4, 9)  # so that the tables of several models stand in line


def heading(result: dict[str, Any]) -> str:
    """The model, what it is and how large its graph."""
    sizes = [one for one in result["contenders"].values() if one.get("vertices")]
    size = f"; {sizes[0]['vertices']:,} vertices, depth {sizes[0]['depth']:,}" if sizes else ""
    return f"{result['model']}: {result['title']}{size}"


def rows(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Cells of a model's table, one row a contender."""
    for key, one in result["contenders"].items():
        yield key, *_cells(key, one)


def table(result: dict[str, Any]) -> RenderableType:
    """A model's table, its title above."""
    shown = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=heading(result), title_justify="left"
    )
    for k, (name, width) in enumerate(zip(_COLUMNS, _WIDTHS, strict=True)):
        justify: Literal["left", "right"] = "right" if 0 < k < len(_COLUMNS) - 1 else "left"
        shown.add_column(name, justify=justify, no_wrap=True, min_width=width)
    for row in rows(result):
        shown.add_row(*map(Text, row))
    return shown


def place(report: dict[str, Any]) -> str:
    """Where and when: of a report's ``versions``, ``machine``, ``load_after`` and ``date``."""
    facts = report["machine"]
    where = facts["accelerator"] or facts["processor"] or facts["architecture"]
    return (
        f"torch {report['versions']['torch']}, {facts['torch_threads']} thread(s) of {facts['cores']} cores, {where}, "
        f"device {facts['device']}, load {facts['load']} before and {report['load_after']} after, {report['date']}"
    )


def about(report: dict[str, Any]) -> list[str]:
    """Where this was measured, and what the columns are."""
    return [
        f"{place(report)}, seed {report['settings']['seed']}",
        "ms: median time of a training step. ratio: to eager backprop's. CPU: the same of processor time. MiB: peak "
        "tensor memory; memory: over backprop's. compile: seconds. check: against backprop; a number is a relative "
        f"distance; of inference learning (T = {report['settings']['il_steps']}) the cosine with backprop's gradient",
    ]


def notes(report: dict[str, Any]) -> list[str]:
    """What was not run, and what went wrong."""
    lines = []
    for result in report["results"]:
        model = result["model"]
        if result["failed"]:
            lines.append(f"{model}: not run ({_line(result['failed'])})")
        reasons: dict[str, list[str]] = {}
        for key, one in result["contenders"].items():
            if "not_run" in one:
                reasons.setdefault(_line(one["not_run"]), []).append(key)
        lines += [f"{model}: {', '.join(keys)} not run ({why})" for why, keys in reasons.items()]
        off = control(result)
        if off is not None and off > CONTROL:
            lines.append(
                f"{model}: backprop differs from itself by {off:.0%} (A/A): smaller differences mean nothing; run "
                "again on a machine at rest, or longer (--seconds)"
            )
        if result["interrupted"]:
            lines.append(f"{model}: interrupted after {result['rounds']} rounds")
    return lines


def exact(report: dict[str, Any]) -> bool:
    """Whether no contender was found to be another thing than what it claims to be."""
    why = [one.get("not_run", "") for result in report["results"] for one in result["contenders"].values()]
    return not any(reason.startswith("not exact") for reason in why)


def as_json(report: dict[str, Any]) -> str:
    """Valid JSON: figures hold no infinities."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def read(path: Path) -> dict[str, Any]:
    """A report that was written by `as_json`.

    Raises:
        PCGraphError: it is none.
    """
    try:
        report = json.loads(path.read_text())
        about(report), notes(report), [list(rows(result)) for result in report["results"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise PCGraphError(
            f"{path} is no report of the benchmark: {type(error).__name__}: {error}", hint="name a file made by --json"
        ) from error
    return report


def command(report: dict[str, Any]) -> str:
    """What makes such a report, without the files that it went to."""
    settings, names = report["settings"], [result["model"] for result in report["results"]]
    parts = ["pcgraph bench", *(name for name in names if name not in MODELS)]
    built_in = [name for name in names if name in MODELS]
    parts += [f"--models {','.join(built_in)}"] if built_in else []
    if settings["contenders"] != list(CONTENDERS):
        parts.append(f"--only '{','.join(key for key in settings['contenders'] if key not in (BASE, AGAIN))}'")
    parts.append(f"--device {report['machine']['device']} --threads {report['machine']['torch_threads']}")
    parts += [f"--{name} {settings[name]:g}" for name in ("rounds", "seconds", "limit", "seed")]
    return " ".join([*parts, f"--il-steps {settings['il_steps']}"])


def as_markdown(report: dict[str, Any]) -> str:
    """A table of ratios by model and contender, then one a model with all figures, and the command that made them."""
    keys = [key for key in _contenders(report["results"]) if key != BASE]
    ratios = [("model", *keys)]
    for result in report["results"]:
        ratios.append((result["model"], *(_ratio_only(result["contenders"].get(key)) for key in keys)))
    where, columns = about(report)
    parts = [f"    {command(report)}", f"{where}.", _markdown(ratios), f"{columns}."]
    for result in report["results"]:
        if result["contenders"]:
            parts += [f"**{heading(result)}**", _markdown([_COLUMNS, *rows(result)])]
    parts.append("\n".join(f"* {line}" for line in notes(report)))
    return "\n\n".join(part for part in parts if part)


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between two marks in a Markdown file, ``<!-- name -->`` and ``<!-- end of name -->``.

    Raises:
        PCGraphError: the marks are not there, once each and in this order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    whole = path.read_text() if path.exists() else ""
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise PCGraphError(
            f"{path.name} has no place for the tables", hint=f"put the lines {begin} and {end} where they belong"
        )
    before, after = whole[: whole.index(begin)], whole[whole.index(end) :]
    path.write_text(f"{before}{begin}\n{text}\n{after}")


def _cells(key: str, one: dict[str, Any]) -> tuple[str, ...]:
    if "not_run" in one:
        return (*[_NONE] * (len(_COLUMNS) - 2), "not run")
    peak, wall = one["peak_bytes"], one["seconds"].get("wall")
    return (
        _NONE if wall is None else _milliseconds(1e3 * wall["median"]),
        _NONE if key == BASE else _with_quartiles(one),
        _NONE if key == BASE or "cpu" not in one["ratio"] else _number(one["ratio"]["cpu"]["median"]),
        _NONE if peak is None else f"{peak / 2**20:.1f}",
        _NONE if key == BASE else _number(one["peak_ratio"]),
        _NONE if one["compile_seconds"] is None else f"{one['compile_seconds']:.2f}",
        str(one["runs"]),
        _verdict(key, one["check"]),
    )


def _verdict(key: str, check: dict[str, Any]) -> str:
    if key in (BASE, AGAIN):
        return _NONE
    if "cosine" in check:
        return f"cos {_number(check['cosine'])}"
    return check["kind"] if check["kind"] in ("bitwise", "float64") else f"{check['distance']:.0e}"


def _with_quartiles(one: dict[str, Any]) -> str:
    if "wall" not in one["ratio"]:
        return _NONE
    ratio = one["ratio"]["wall"]
    spread = f" [{_number(ratio['low'], 2)}, {_number(ratio['high'], 2)}]" if one["runs"] > 1 else ""
    return f"{_number(ratio['median'])}{spread}"


def _milliseconds(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return _NONE
    return f"{value:.{digits}f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _ratio_only(one: dict[str, Any] | None) -> str:
    if one is None or not one.get("ratio"):
        return _NONE if one is None else "not run"
    return _number(one["ratio"]["wall"]["median"])


def _contenders(results: Sequence[dict[str, Any]]) -> list[str]:
    return [key for key in CONTENDERS if any(key in result["contenders"] for result in results)]


def _line(text: str) -> str:
    return " ".join(text.split())


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in (cells[0], ["---"] * len(cells[0]), *cells[1:]))
