"""Where words go: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.status import Status
from rich.text import Text


def progress_console() -> Console:
    """Console for progress and messages: stderr, so that stdout stays clean for pipes."""
    return Console(stderr=True)


def status(what: str) -> Status:
    """A spinner on stderr while something takes long; silent when stderr is not a terminal."""
    return progress_console().status(Text(what))


@contextmanager
def loading(target: str) -> Iterator[Callable[[str], None]]:
    """A spinner while a model is loaded; what it yields says how far that is."""
    with status(f"loading {target}") as spinner:
        yield lambda text: spinner.update(Text(text))


def say(message: str) -> None:
    """Print one line to stderr."""
    progress_console().print(Text(message), soft_wrap=True, highlight=False)


def say_error(message: str) -> None:
    """Print one error message, unwrapped so that it can be searched for."""
    head, _, rest = message.partition("\n")
    text = Text.assemble(("error: ", "bold red"), head, "\n" + rest if rest else "")
    progress_console().print(text, soft_wrap=True, highlight=False)


def show(*renderables: RenderableType) -> None:
    """Print to stdout. Into a pipe or file nothing is wrapped, cut or padded: the width follows the content.

    On a terminal that is too narrow for a table's unbreakable cells the lines run over, but nothing is cut off.
    """
    console = Console(highlight=False)
    if console.is_terminal:
        narrowest = [Measurement.get(console, console.options.update(width=1000), item).minimum for item in renderables]
        console.width = max(console.width, *narrowest)
        for item in renderables:
            console.print(item)
        return
    wide = console.options.update(width=100_000)
    console.width = max(80, *(Measurement.get(console, wide, item).maximum for item in renderables))
    with console.capture() as captured:
        for item in renderables:
            console.print(item)
    write("\n".join(line.rstrip() for line in captured.get().splitlines()))


def write(text: str) -> None:
    """Print plain text to stdout as it is: JSON, dot, stable text forms."""
    print(text)


def discard_stdout() -> None:
    """Send what is still to be written nowhere: nobody reads it, and Python would complain at its exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
