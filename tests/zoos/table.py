"""The rows as a page of Markdown; nothing on it is written by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

from tests.zoos.row import Row, Status

_INTRODUCTION = """\
# Other people's models
Written by `python -m tests.zoos`; do not edit. Random weights, small inputs, training mode with dropout on, one thread.
Each model takes two steps on different random inputs, plain and compiled, on the same seeds. Outputs, loss, gradients
of parameters and floating inputs, buffers, arguments and random states are compared to the bit.

* *bitwise*: all equal. *close*: differs by rounding (relative difference in float32 / float64).
* *refused*: pcgraph says why it does not compile the model. *WRONG*, *failed*, *timeout*: speak for themselves.
* *not trainable*, *nondeterministic*, *not built*: plain autograd cannot train the model, or gives other values in a
  second run, or the library cannot build it here, so there is nothing to compare with.
* *simpler*: the model as it is was refused, and a form was tried that returns a plain dictionary and keeps no cache.
* *again*: captured again at every call, since the model does what cannot be guarded.
* Seconds: *capture* is capture and compilation, *plain* is one step of plain autograd.
* *lookup*: microseconds that a repeated call spends on its signature and guards, before the compiled program.
"""
MANY = "ecosystem"
_MANY = """\
{models} models of {packages} packages: {counts}. Besides the two steps, each was trained by SGD with momentum and by
AdamW, for three steps in training mode, three in evaluation mode and three in training mode again, with batches of 2, 3
and 2, and stepped likewise in float64 where it can be. Small ones were simulated in float64: Z-IL within 1e-9 of
autograd ({zil} models), and `learn` by `IL(gamma=0.01, steps=5)` within 1e-9 of its simulation ({il}).

{versions}"""
_TIMES = ("capture, s", "plain, s", "lookup, us")
_COUNTED = ("simpler", "with opaque vertices", "again", "median vertices", "median capture, s", "lookup, us")


def render(rows: Sequence[Row]) -> str:
    """The page."""
    libraries = list(dict.fromkeys(row.library for row in rows))
    parts = [_INTRODUCTION, _counts(rows, [library for library in libraries if library != MANY])]
    return "\n".join([*parts, *(section(rows, library) for library in libraries)])


def section(rows: Sequence[Row], library: str) -> str:
    """The part of the page about one library."""
    mine = sorted((row for row in rows if row.library == library), key=lambda row: row.model)
    head = _about_many(mine) if library == MANY else _versions(mine)
    parts = [f"## {library}\n{head}\n", _models(mine), _messages(mine)]
    return "\n".join(part for part in parts if part)


def with_sections(page: str, rows: Sequence[Row]) -> str:
    """A page with other sections about the libraries of the rows; the rest stays, the counts at its top as well.

    >>> with_sections("# Top\\n\\n## one\\nold\\n\\n## two\\nkept\\n", []).count("##")
    2
    """
    parts = [part.strip() for part in re.split(r"(?m)^(?=## )", page)]
    for library in dict.fromkeys(row.library for row in rows):
        new = section(rows, library).strip()
        place = next((k for k, part in enumerate(parts) if part.startswith(f"## {library}\n")), None)
        parts = [*parts, new] if place is None else [*parts[:place], new, *parts[place + 1 :]]
    return "\n\n".join(parts) + "\n"


def _about_many(rows: Sequence[Row]) -> str:
    """What the section of many libraries says before its table: how each was compared, and all versions."""
    statuses = Counter(row.status for row in rows)
    counts = ", ".join(f"{statuses[status]} {status}" for status in Status if statuses[status])
    checks = Counter(check for row in rows for check in row.checks)
    return _MANY.format(
        packages=len({row.model.split()[0] for row in rows}),
        models=len(rows),
        counts=counts,
        zil=checks["Z-IL"],
        il=checks["IL"],
        versions=_versions(rows),
    )


def _counts(rows: Sequence[Row], libraries: Sequence[str]) -> str:
    statuses = [status for status in Status if any(row.status is status for row in rows)]
    lines = [_line("library", "models", *statuses, *_COUNTED)]
    lines.append(_line("---", *["--:"] * (len(statuses) + len(_COUNTED) + 1)))
    for library in libraries:
        mine = [row for row in rows if row.library == library]
        count = Counter(row.status for row in mine)
        done = [row for row in mine if row.vertices] or mine
        lines.append(
            _line(
                library,
                len(mine),
                *(count[status] for status in statuses),
                sum(bool(row.simpler) for row in mine),
                sum(bool(row.opaque) for row in mine),
                sum(bool(row.once) for row in mine),
                f"{median(row.vertices for row in done):.0f}",
                f"{median(row.capture for row in done):.1f}",
                _lookups(mine),
            )
        )
    return "\n".join(lines) + "\n"


def _lookups(rows: Sequence[Row]) -> str:
    """Median, and how many of how many are under 50 microseconds."""
    known = [row.lookup for row in rows if row.lookup]
    return f"{median(known):.0f}, {sum(one < 50 for one in known)} of {len(known)} under 50" if known else ""


def _versions(rows: Sequence[Row]) -> str:
    seen = sorted({", ".join(f"{name} {number}" for name, number in row.versions.items()) for row in rows} - {""})
    if rows and rows[0].library == MANY:  # each has a version of its own, and all the same torch
        known = dict.fromkeys(f"{name} {number}" for row in rows for name, number in row.versions.items())
        seen = [", ".join(known)]
    dates = sorted(row.date[:10] for row in rows if row.date)
    return f"{'; '.join(seen)}. {' to '.join(dict.fromkeys((dates[0], dates[-1])))}." if dates else ""


def _models(rows: Sequence[Row]) -> str:
    lines = [
        _line(
            "model", "status", "parameters", "vertices", "T", "opaque", "again", "capture, s", "plain, s", "lookup, us"
        ),
        _line("---", "---", *["--:"] * 4, "---", *["--:"] * 3),
    ]
    for row in rows:
        status = f"{row.status}{', simpler' if row.simpler else ''}"
        if row.status is Status.CLOSE:
            narrow, wide = row.relative
            status += f" ({narrow:.0e} / {'-' if wide is None else f'{wide:.0e}'})"
            status += "".join(f", {note}" for note in row.notes if "oneDNN" in note)
        known = (row.vertices, row.steps, sum(row.opaque.values())) if row.vertices else ("", "", "")
        times = (f"{row.capture:.1f}", f"{row.plain:.2f}", f"{row.lookup:.0f}" if row.lookup else "")
        times = times if row.vertices else ("", "", "")
        lines.append(_line(row.model, status, f"{row.parameters:,}", *known, "yes" if row.once else "", *times))
    return "\n".join(lines) + "\n"


def _messages(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        if row.status is not Status.BITWISE:
            lines.append(f"* {row.model}, {row.status}: {_short(row.message)}")
        lines += [f"* {row.model}, {count} opaque: {_short(reason)}" for reason, count in row.opaque.items()]
    simpler = Counter(_short(_nameless(row.simpler)) for row in rows if row.simpler)
    lines += [f"* simpler form tried, {count} models: {reason}" for reason, count in simpler.most_common()]
    again = Counter(_short(row.once[0]) for row in rows if row.once)
    lines += [f"* captured again at each call, {count} models: {reason}" for reason, count in again.most_common()]
    return "\n".join(lines) + "\n" if lines else ""


def _short(text: str) -> str:
    text = re.sub(r"[^\s(]*/site-packages/", "", text)  # where a library is installed is nobody's business
    text = re.sub(r"[^\s(]*/(?=tests/zoos/)", "", text)  # nor is where this is
    return " ".join(text.split("\n")[:2])[:250].replace("|", "\\|").replace("<", "\\<")


def _nameless(message: str) -> str:
    """The first line of a message without shapes, so that equal causes are counted together."""
    return re.sub(r"\(\d[\d, ]*\)", "(...)", message.split("\n")[0])


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
