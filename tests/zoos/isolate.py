"""Every model in a process of its own: one that hangs, dies or eats the memory takes no other with it.

A server process imports torch and the library once and forks for each model, so that a process costs no imports.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.zoos.row import Row

PATIENCE = 10

Report = Callable[[str], None]


def judged(library: str, name: str, report: Report) -> Row:
    """The row of a model of a library's zoo."""
    from tests.zoos.judge import judge
    from tests.zoos.libraries import specimens

    return judge(specimens(library)[name], report)


def run(
    library: str,
    names: Sequence[str],
    logs: Path,
    *,
    jobs: int,
    timeout: float,
    work: Callable[[str, Report], Any] | None = None,
    rows: type[Any] = Row,
    preload: Sequence[str] = (),
) -> Iterator[Any]:
    """Judge models of one library; rows come as they are ready.

    Args:
        library: whose models.
        names: of the models.
        logs: folder for what each model prints.
        jobs: processes at a time.
        timeout: seconds of processor time for one model; of time on the clock, `PATIENCE` times as many.
        work: makes the row of a name, in the model's process; can be pickled. `judged` if not given.
        rows: the class of the rows; its `died` and `overdue` make those of models that made none.
        preload: modules that the server imports once.
    """
    logs.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload) or ["tests.zoos.judge", library])
    work = work or partial(judged, library)
    waiting, running = list(reversed(names)), list[_Child]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(context, library, waiting.pop(), logs, timeout, work, rows))
            first = min(child.deadline for child in running)
            wait([child.pipe for child in running], timeout=max(0.0, first - time.monotonic()))
            for child in list(running):
                row = child.poll()
                if row is not None:
                    running.remove(child)
                    yield row
    finally:
        for child in running:
            child.process.kill()


@dataclass
class _Child:
    """A process that judges one model; it sends the name of every stage, and its row at the end."""

    process: BaseProcess
    pipe: Connection
    library: str
    name: str
    timeout: float
    deadline: float
    rows: type[Any]
    stage: str = "starting"

    def poll(self) -> Any | None:
        """Its row, if it is ready, has died or is overdue."""
        try:
            while self.pipe.poll():
                message = self.pipe.recv()
                if isinstance(message, self.rows):
                    self.process.join()
                    return message
                self.stage = message
        except EOFError:
            self.process.join()
            if self.process.exitcode == -signal.SIGXCPU:
                return self._overdue()
            text = f"the process ended with exit code {self.process.exitcode} while {self.stage}"
            return self.rows.died(self.library, self.name, text)
        if time.monotonic() < self.deadline:
            return None
        self.process.kill()
        self.process.join()
        return self._overdue()

    def _overdue(self) -> Any:
        text = f"not ready after {self.timeout:.0f} s of processor time, while {self.stage}"
        return self.rows.overdue(self.library, self.name, text)


def _start(
    context: multiprocessing.context.ForkServerContext,
    library: str,
    name: str,
    logs: Path,
    timeout: float,
    work: Callable[[str, Report], Any],
    rows: type[Any],
) -> _Child:
    ours, theirs = context.Pipe(duplex=False)
    log = logs / f"{library}.{name.replace('/', '.')}.log"
    process = context.Process(target=_judge, args=(work, name, log, int(timeout), theirs), daemon=True)
    process.start()
    theirs.close()
    return _Child(process, ours, library, name, timeout, time.monotonic() + PATIENCE * timeout, rows)


def _judge(work: Callable[[str, Report], Any], name: str, log: Path, timeout: int, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (timeout, timeout + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    pipe.send(work(name, pipe.send))
