"""Run the zoos: `python -m tests.zoos --library timm --write docs/zoo.md`. An interrupted run goes on where it was."""

from __future__ import annotations

import argparse
import fnmatch
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.zoos.isolate import run
from tests.zoos.libraries import LIBRARIES, specimens
from tests.zoos.row import Results, Row, Status
from tests.zoos.table import render, with_sections


def main() -> int:
    """Exit code 1 if a model is wrong or failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the models' processes are ended
    options = _options()
    libraries = options.library or LIBRARIES
    rows: list[Row] = []
    for library in libraries:
        try:
            zoo = specimens(library)
        except ImportError as error:
            print(f"{library}: left out: {error}", file=sys.stderr)
            continue
        names = [n for n in zoo if not options.only or any(fnmatch.fnmatch(n, p) for p in options.only)]
        if options.list:
            print("\n".join(f"{library} {name}" for name in names))
            continue
        results: Results[Row] = Results(options.results, library)
        open_names = [n for n in names if n not in results.rows or results.rows[n].status in options.again]
        if options.here:
            _here(library, open_names)
            continue
        if not options.no_run:
            logs = options.results / "logs"
            for k, row in enumerate(run(library, open_names, logs, jobs=options.jobs, timeout=options.timeout), 1):
                results.add(row)
                print(f"[{k}/{len(open_names)}] {_progress(row)}", file=sys.stderr, flush=True)
        rows += [results.rows[name] for name in zoo if name in results.rows]
    if options.write and rows:
        if options.library and options.write.exists():
            options.write.write_text(with_sections(options.write.read_text(), rows))
        else:
            options.write.write_text(render(rows))
    return int(any(row.status in (Status.WRONG, Status.FAILED) for row in rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.zoos", description=__doc__)
    add = parser.add_argument
    add("--library", action="append", choices=LIBRARIES, help="which; may be repeated; all by default")
    add("--only", action="append", metavar="PATTERN", help="names of models, with *; may be repeated")
    add("--results", type=Path, default=Path("build/zoos"), help="folder of the results and logs (build/zoos)")
    add("--again", nargs="+", type=Status, default=[], metavar="STATUS", help="run models anew that came out so")
    add("--jobs", type=int, default=1, help="models at a time (1)")
    add("--timeout", type=float, default=120, help="seconds of processor time for one model (120)")
    add("--write", type=Path, metavar="FILE", help="write a table of the results; with --library, their sections in it")
    add("--no-run", action="store_true", help="run nothing, only write the table")
    add("--here", action="store_true", help="run in this process, for a debugger; keep no results")
    add("--list", action="store_true", help="print the names of the models")
    return parser.parse_args()


def _here(library: str, names: list[str]) -> None:
    import torch

    from tests.zoos.judge import judge

    torch.set_num_threads(1)
    for name in names:
        row = judge(specimens(library)[name], lambda stage: print(f"  {stage}", file=sys.stderr))
        print(_progress(row), row.message, row.traceback, *row.notes, *row.once, *row.opaque, sep="\n", flush=True)


def _progress(row: Row) -> str:
    size = f"{row.vertices} vertices, T={row.steps}, {sum(row.opaque.values())} opaque, {row.seconds:.0f} s"
    first = row.message.split("\n")[0][:150]
    return f"{row.library} {row.model}: {row.status}  ({size}{', again each call' if row.once else ''})  {first}"


if __name__ == "__main__":
    sys.exit(main())
