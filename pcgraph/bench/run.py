"""The benchmark from start to end: a process per model, watched for time and memory."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..errors import PCGraphError
from ..machine import load, machine, memory_bytes, versions
from .figures import Collected, figures, summary
from .names import BASE
from .worker import Task, work

POLL = 0.2  # seconds between two looks at a silent process
GRACE = 1.5  # a process that has not left something out by itself after so many limits is ended


Progress = Callable[[str], None]


def measure(task: Task, memory_limit: int | None, progress: Progress) -> Collected:
    """Measure one model in a process of its own.

    A contender that takes more than the task's limit to be made, or under which the process grows beyond the memory
    limit or dies, is left out, and the process starts again without it. Ctrl-C ends it and keeps what there is.

    Args:
        task: what to measure.
        memory_limit: resident bytes that the process may have; None, or a system that does not tell, for no limit.
        progress: called with what is going on.
    """
    found = Collected()
    while True:
        end = _once(dataclasses.replace(task, left_out=dict(found.not_run)), memory_limit, progress, found)
        if end is None:
            return found
        key, why = end
        if found.rounds or key == BASE:  # the race is over, or there is nothing to compare with
            if key == BASE and not found.rounds:
                found.failed = why
            return found
        found.not_run[key] = why
        found.ready.clear()


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes:
        tasks: by name of the model, its title and its task.
        memory_limit: GiB that a measuring process may have; None for 80% of the machine's.
    """

    tasks: dict[str, tuple[str, Task]]
    memory_limit: float | None = None


def run(settings: Settings, doing: Progress, say: Progress, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure one model after the other.

    Args:
        settings: what to run.
        doing: called with what is going on.
        say: called with a line for every model that is done.
        keep: called with the report so far after every model.

    Returns:
        The report: ``results`` (see `figures`), ``settings``, ``versions``, ``machine``, ``load_after``, ``date``,
        ``seconds``, ``interrupted``.

    Raises:
        PCGraphError: the device is not there.
    """
    first = next(iter(settings.tasks.values()))[1]
    check_device(first.device)
    began = time.monotonic()
    total, wanted = memory_bytes(), settings.memory_limit
    limit = None if wanted is None and total is None else int((wanted or 0.8 * (total or 0) / 2**30) * 2**30)
    report = _opening(first, limit)
    for k, (name, (title, task)) in enumerate(settings.tasks.items(), 1):

        def at(what: str, name: str = name, k: int = k) -> None:
            doing(f"{name} ({k} of {len(settings.tasks)}): {what}")

        at("starting")
        found = measure(task, limit, at)
        result = figures(name, title, found)
        report["results"].append(result)
        report |= {"interrupted": found.interrupted, "load_after": load(), "seconds": time.monotonic() - began}
        say(summary(result))
        keep(report)
        if found.interrupted:
            break
    return report


def _opening(task: Task, memory_limit: int | None) -> dict[str, Any]:
    return {
        "results": [],
        "settings": {
            "rounds": task.rounds,
            "seconds": task.seconds,
            "limit": task.limit,
            "memory_limit_bytes": memory_limit,
            "il_steps": task.il_steps,
            "seed": task.seed,
            "contenders": list(task.contenders),
        },
        "versions": versions(("triton",)),
        "machine": machine(task.threads, task.device),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def check_device(name: str) -> None:
    """Raise `PCGraphError` if torch cannot use a device."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, False):
        usable = ", ".join(key for key, usable in there.items() if usable)
        raise PCGraphError(f"torch cannot use the device {name} here", hint=f"--device {usable}")


def _once(task: Task, memory_limit: int | None, progress: Progress, found: Collected) -> tuple[str, str] | None:
    """Run one process; returns the contender that it had to be ended for, and why, or None."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, task), daemon=True)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read at import; the profiler would talk into the progress display
    with _deaf_to_ctrl_c():
        process.start()
    there.close()
    at, since = BASE, time.monotonic()
    patience: float | None = None
    try:
        for message in _messages(here, process):
            if message is None:
                why = ""
                if patience is not None and time.monotonic() - since > patience:
                    why = f"over limit: more than {task.limit:.0f} s"
                elif memory_limit is not None and _resident(process.pid) > memory_limit:
                    why = f"over limit: more than {memory_limit / 2**30:.1f} GiB"
                if why:
                    return at, why
                continue
            if "at" in message:
                at, since = message["at"] or BASE, time.monotonic()
                patience = None if message["at"] is None else GRACE * task.limit
                progress(f"{message['doing']} {message['at'] or ''}".strip())
            _note(message, found)
            if "done" in message:
                return None
        process.join()
        return at, f"its process ended with code {process.exitcode} (a signal if below 0; 9: out of memory)"
    except KeyboardInterrupt:
        found.interrupted = True
        return None
    finally:
        process.kill()
        process.join()
        here.close()


def _note(message: Mapping[str, Any], found: Collected) -> None:
    if "ready" in message:
        found.ready[message["ready"]] = {k: v for k, v in message.items() if k != "ready"}
    elif "not run" in message:
        found.not_run[message["not run"]] = message["why"]
        found.ready.pop(message["not run"], None)
    elif "round" in message:
        found.rounds.append(message["round"])
    elif "peak" in message:
        found.peaks[message["peak"]] = message["bytes"]
    elif "failed" in message:
        found.failed = message["failed"]


def _messages(here: Connection, process: Any) -> Iterator[dict[str, Any] | None]:
    """What the process says, None while it says nothing; ends with it."""
    while True:
        try:
            if here.poll(POLL):
                yield here.recv()
            elif process.is_alive():
                yield None
            else:
                return
        except EOFError:
            return


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """A process that starts in here ignores Ctrl-C: that is for this one, which keeps what was measured."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _child(there: Connection, task: Task) -> None:
    warnings.simplefilter("ignore")  # about compilers' caches, which are off here
    work(task, there.send)
    there.close()


def _resident(pid: int | None) -> int:
    """Resident bytes of a process, where the system has /proc; else 0."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()
