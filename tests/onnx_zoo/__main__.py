"""Run the zoo of ONNX files: `python -m tests.onnx_zoo --files FOLDER --write docs/onnx_models.md`; it is resumable."""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["PCGRAPH_ONNX_ZOO"] = "1"

from tests.onnx_zoo.parts import PARTS, PRELOAD, judged, names_of
from tests.onnx_zoo.row import Row, Status
from tests.onnx_zoo.table import render
from tests.zoos.isolate import run
from tests.zoos.row import Results


def main() -> int:
    """Exit code 1 if a file is wrong or failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the files' processes are ended
    options = _options()
    rows: list[Row] = []
    for part in options.part or PARTS:
        known = names_of(part)
        names = [n for n in known if not options.only or any(fnmatch.fnmatch(n, p) for p in options.only)]
        if options.list:
            print("\n".join(f"{part} {name}" for name in names))
            continue
        work = partial(judged, part, options.results / "files", options.files)
        results: Results[Row] = Results(options.results, part, Row)
        again = {*options.again, Status.NOT_RUN}
        open_names = [n for n in names if n not in results.rows or results.rows[n].status in again]
        if options.here:
            _here(work, names)
            continue
        if not options.no_run:
            logs = options.results / "logs"
            found = run(
                part, open_names, logs, jobs=options.jobs, timeout=options.timeout, work=work, rows=Row, preload=PRELOAD
            )
            for k, row in enumerate(found, 1):
                results.add(row)
                print(f"[{k}/{len(open_names)}] {_progress(row)}", file=sys.stderr, flush=True)
        rows += [results.rows[name] for name in known if name in results.rows]
    if options.write and rows:
        options.write.write_text(render(rows))
    return int(any(row.status in (Status.WRONG, Status.FAILED, Status.TIMEOUT) for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.onnx_zoo", description=__doc__)
    add = parser.add_argument
    add("--part", action="append", choices=PARTS, help="which; may be repeated; all by default")
    add("--only", action="append", metavar="PATTERN", help="names of files, with *; may be repeated")
    add("--files", type=Path, metavar="FOLDER", help="unpacked wheels, each in a folder PACKAGE-VERSION")
    add("--results", type=Path, default=Path("build/onnx_zoo"), help="folder of results and exports (build/onnx_zoo)")
    add("--again", nargs="+", type=Status, default=[], metavar="STATUS", help="run files anew that came out so")
    add("--jobs", type=int, default=1, help="files at a time (1)")
    add("--timeout", type=float, default=300, help="seconds of processor time for one file (300)")
    add("--write", type=Path, metavar="FILE", help="write a table of the results")
    add("--no-run", action="store_true", help="run nothing, only write the table")
    add("--here", action="store_true", help="run in this process, for a debugger; keep no results")
    add("--list", action="store_true", help="print the names of the files")
    return parser.parse_args()


def _here(work: partial[Row], names: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    for name in names:
        row = work(name, lambda stage: print(f"  {stage}", file=sys.stderr))
        print(_progress(row), row.message, row.traceback, *row.notes, sep="\n", flush=True)


def _progress(row: Row) -> str:
    first = row.message.split("\n")[0][:150]
    worst = max(row.forward.values(), default=float("nan"))
    gradient = max(error for error in row.gradient[:2] if error is not None)
    figures = f"forward {worst:.0e}, gradient {gradient:.0e}, {', '.join(row.compiled.values())}, {row.seconds:.0f} s"
    return f"{row.library} {row.model}: {row.status}  ({figures})  {first}"


if __name__ == "__main__":
    sys.exit(main())
