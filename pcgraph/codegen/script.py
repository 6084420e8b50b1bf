"""Writing one Python function with loops and conditions, temporaries deleted after their last use."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .lines import Line, fresh_name


class Script:
    """A function under construction.

    Args:
        name: of the function.
        arguments: their names.
    """

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self._name = name
        self._text = [f"def {name}({', '.join(arguments)}):"]
        self._indent = 1
        self._namespace: dict[str, Any] = {"torch": torch, "once": (0,)}

    def add(self, text: str) -> None:
        """One line of source."""
        self._text.append("  " * self._indent + text)

    def unpack(self, argument: str, names: Sequence[str]) -> None:
        """Give the items of a list names; the list is emptied."""
        if names:
            self.add(f"[{', '.join(names)}] = {argument}")
            self.add(f"{argument}.clear()")

    def lines(self, lines: Sequence[Line], keep: Collection[str] | None = None) -> None:
        """Lines in order. What they make and `keep` does not have is deleted after its last use; None keeps all."""
        last: dict[str, int] = {}
        made: set[str] = set()
        for index, line in enumerate(lines):
            made.update(line.outs)
            last.update(dict.fromkeys((*line.reads, *line.outs), index))
        for index, line in enumerate(lines):
            self._namespace.update(line.constants)
            self.add(line.render())
            if keep is not None:
                self.forget([name for name, n in last.items() if n == index and name in made and name not in keep])

    def forget(self, names: Sequence[str]) -> None:
        """Delete names."""
        if names:
            self.add(f"del {', '.join(names)}")

    def either(self, condition: str, one: Sequence[Line], other: Sequence[Line], keep: Any = None) -> None:
        """``if condition: one``, ``else: other``."""
        with self.block(f"if {condition}:"):
            self.lines(one, keep)
        with self.block("else:"):
            self.lines(other, keep)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """An indented block."""
        self.add(head)
        self._indent += 1
        length = len(self._text)
        yield
        if len(self._text) == length:
            self.add("pass")
        self._indent -= 1

    @contextmanager
    def until(self, lag: int) -> Iterator[None]:
        """What is inside is not needed in the last `lag` steps."""
        if lag > 0:
            with self.block(f"if t < steps - {lag}:"):
                yield
        else:
            yield

    def fork(self) -> Script:
        """A part that is written before what comes in front of it."""
        part = Script(self._name, ())
        part._text, part._indent, part._namespace = [], self._indent, self._namespace
        return part

    def join(self, part: Script) -> None:
        """Put a forked part here."""
        self._text += part._text

    def compile(self) -> tuple[str, Callable[..., Any]]:
        """Source and function."""
        source = "\n".join(self._text) + "\n"
        filename = f"<pcgraph {self._name} {fresh_name()}>"
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
        exec(compile(source, filename, "exec"), self._namespace)
        function: Callable[..., Any] = self._namespace.pop(self._name)
        return source, function
