"""Run every operation and module of torch's own test databases through pcgraph.

    python -m tests.opinfo --write docs/operations.md
    python -m tests.opinfo --only 'nn.functional.*' --samples 4

Exit code 1 if a case is not exact and not listed in `exceptions.py`, or is listed and exact.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.opinfo.exceptions import complaints
from tests.opinfo.plan import Piece, everything
from tests.opinfo.records import Record, append, label, load, run
from tests.opinfo.table import counts, document
from tests.opinfo.trials import TRIALS

MOST = 12


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.opinfo", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of operations and modules")
    parser.add_argument("--samples", type=int, default=MOST, help="at most so many of each (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--records", type=Path, metavar="FILE", help="keep verdicts here; go on where a run stopped")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table here")
    options = parser.parse_args()
    pieces = everything(options.samples, options.only)
    console = Console(stderr=True)
    records = list(_records(pieces, options.jobs, options.records, console))
    for result, number in counts(records).items():
        console.print(f"{number:7} {result}")
    wrong = complaints(records)
    for line in wrong:
        print(line)
    if options.write is not None:
        options.write.write_text(document(records, options.samples, list(TRIALS)))
    return 1 if wrong else 0


def _records(pieces: list[Piece], jobs: int, kept: Path | None, console: Console) -> Iterator[Record]:
    """All verdicts, in the order of the pieces."""
    done = load(kept)
    missing = [piece for piece in pieces if label(piece) not in done]
    columns = (TextColumn("{task.description:50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    context = multiprocessing.get_context("spawn")
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(pieces), completed=len(pieces) - len(missing))
        with ProcessPoolExecutor(jobs, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            running = {pool.submit(run, piece): label(piece) for piece in missing}
            for future in as_completed(running):
                name = running[future]
                done[name] = future.result()
                append(kept, name, done[name])
                progress.update(task, advance=1, description=name)
    for piece in pieces:
        yield from done[label(piece)]


if __name__ == "__main__":
    sys.exit(main())
