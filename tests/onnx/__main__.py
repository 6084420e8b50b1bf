"""Run onnx's own backend tests through the importer.

    python -m tests.onnx --write docs/onnx.md
    python -m tests.onnx --only 'test_conv*'

Exit code 1 if a case does not pass and is not listed in `exceptions.py`, or is listed and passes.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from pcgraph.bench.report import write_between
from tests.onnx.cases import KINDS, OnnxCase, file_cases, node_cases
from tests.onnx.exceptions import EXCEPTIONS
from tests.onnx.judge import Result, Role, Verdict, judge
from tests.onnx.table import document


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.onnx", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of cases")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables between their marks in this page")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    groups: dict[str, list[Verdict]] = {}
    for title, cases, roles in _plan(options.only):
        groups[title] = [judge(c, role) for role in roles for c in track(cases, f"{title} {role}", console=console)]
    everything = [verdict for verdicts in groups.values() for verdict in verdicts]
    wrong = [v for v in everything if (v.result is not Result.PASSED) != (v.name in EXCEPTIONS)]
    for verdict in wrong:
        print(f"{verdict.name} as {verdict.role}: {verdict.result} {verdict.reason}")
    if options.write is not None:
        write_between(options.write, "python -m tests.onnx", document(groups).rstrip())
    return 1 if wrong else 0


def _plan(pattern: str) -> list[tuple[str, list[OnnxCase], list[Role]]]:
    """Kinds of cases, and the roles that they are judged in; those in files have their weights already."""
    files = [case for kind in KINDS[1:] for case in file_cases(kind)]
    plan = [("node tests", node_cases(), list(Role)), ("file tests", files, [Role.INPUTS])]
    return [(title, [c for c in cases if fnmatch.fnmatch(c.name, pattern)], roles) for title, cases, roles in plan]


if __name__ == "__main__":
    sys.exit(main())
