"""What the page on ONNX says of onnx's own tests. Every number in it is counted, none is written by hand."""

from __future__ import annotations

import datetime
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from pcgraph.onnx.operators import rows
from tests.onnx.exceptions import EXCEPTIONS
from tests.onnx.judge import Result, Role, Verdict

HEAD = """\
Written by `python -m tests.onnx --write docs/onnx.md`.

The backend tests that onnx ships. In scope are node tests with plain tensors, a float among the inputs and among the
outputs, operators of ai.onnx and no random numbers, and all file tests with plain tensors. Outputs are compared with
those expected, by the tolerances that onnx gives. Then the module is compiled, and one step of the network is compared
with autograd on the same module, to the bit (oneDNN off): outputs, gradients of parameters and arguments, buffers.
*Inputs*: the floats of the case are arguments of forward. *Parameters*: they are initializers of the file, and learn.

{versions}, {date}.
"""

MEANING = {
    Result.PASSED: "outputs as expected, gradients equal to the bit",
    Result.REFUSED: "refused with an `OnnxImportError`",
    Result.WRONG: "outputs differ by more than the tolerance",
    Result.ERROR: "another exception",
    Result.INEXACT: "outputs as expected, the compiled network differs from autograd",
}


def document(groups: Mapping[str, Sequence[Verdict]]) -> str:
    """The tables, from verdicts by kind of case."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("pcgraph", "torch", "onnx", "onnx_ir", "numpy"))
    versions = f"{packages}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    head = HEAD.format(versions=versions, date=datetime.date.today().isoformat())
    return "\n".join([head, _results(groups), _failures(groups), _operators()])


def _results(groups: Mapping[str, Sequence[Verdict]]) -> str:
    columns = [(kind, role) for kind in groups for role in Role if any(v.role is role for v in groups[kind])]
    found = {(kind, role): Counter(v.result for v in groups[kind] if v.role is role) for kind, role in columns}
    titles = " | ".join(f"{kind}, {role}" for kind, role in columns)
    lines = ["### Results", "", f"| result | meaning | {titles} |", f"|---|---|{'--:|' * len(columns)}"]
    for result in Result:
        cells = " | ".join(f"{found[column][result]:,}" for column in columns)
        lines.append(f"| {result} | {MEANING[result]} | {cells} |")
    lines.append(f"| all | | {' | '.join(f'{found[column].total():,}' for column in columns)} |")
    learning = " | ".join(f"{sum(v.learns for v in groups[kind] if v.role is role):,}" for kind, role in columns)
    lines.append(f"| learning | something needs a gradient | {learning} |")
    return "\n".join(lines) + "\n"


def _failures(groups: Mapping[str, Sequence[Verdict]]) -> str:
    lines = ["### Not passed", "", "| case | role | result | why |", "|---|---|---|---|"]
    for verdicts in groups.values():
        for v in verdicts:
            if v.result is not Result.PASSED:
                reason = EXCEPTIONS.get(v.name) or v.reason.splitlines()[0]
                lines.append(f"| `{v.name}` | {v.role} | {v.result} | {reason.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def _operators() -> str:
    lines = [
        "### Operators",
        "",
        "Computed by a function of their own; others that ONNX defines by these are expanded.",
        "",
    ]
    for domain in sorted({row.domain for row in rows()}):
        names = sorted({row.name for row in rows() if row.domain == domain})
        names = names if domain else sorted({*names, "Constant", "If", "Loop", "Scan"})
        lines.append(f"* {domain or 'ai.onnx'} ({len(names)}): {', '.join(f'`{name}`' for name in names)}")
    return "\n".join(lines) + "\n"
