"""Emission: lines become straight-line Python, every value freed after its last use.

One function where that is of a size that Python compiles and runs well; a long program is cut into several (`chunks`).
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .chunks import Chunked
from .lifetimes import deletion, dying, last_uses
from .lines import Line, fresh_name

MOST_LINES = 4000  # of one function
CHUNK_LINES = 1000  # of each function of a longer program


@dataclass(frozen=True)
class Emitted:
    """A generated function with its source."""

    function: Callable[..., Any]
    source: str


def emit(
    name: str, arguments: Sequence[tuple[str, Sequence[str]]], lines: Sequence[Line], returns: Sequence[tuple[str, ...]]
) -> Emitted:
    """Compile lines into ``def name(arg, ...)``.

    Args:
        name: of the function.
        arguments: per argument, its name and the names its list is unpacked into; the list is emptied, so that
            the values die with their last use here.
        lines: the body.
        returns: per returned list, the names in it (``None`` stands for itself).
    """
    import torch

    namespace: dict[str, Any] = {"torch": torch}
    for line in lines:
        if line.constants:
            namespace.update(line.constants)
    if len(lines) > MOST_LINES:
        chunked = Chunked(arguments, lines, returns, CHUNK_LINES)
        numbered = [(f"{name}_{k}", text) for k, text in enumerate(chunked.sources(name))]
        parts = [_compile(part, text, namespace) for part, text in numbered]
        return Emitted(chunked.join(parts), "".join(text for _, text in numbered))
    source = f"def {name}({', '.join(argument for argument, _ in arguments)}):\n  "
    source += "\n  ".join(_body(arguments, lines, returns)) + "\n"
    return Emitted(_compile(name, source, namespace), source)


def _body(
    arguments: Sequence[tuple[str, Sequence[str]]], lines: Sequence[Line], returns: Sequence[tuple[str, ...]]
) -> list[str]:
    kept = {item for group in returns for item in group}
    last = last_uses(lines)
    dead = dying(last, kept)
    body = []
    for argument, names in arguments:
        if names:
            body.append(f"[{', '.join(names)}] = {argument}")
            body.append(f"{argument}.clear()")
    body += deletion(n for _, names in arguments for n in names if n not in last and n not in kept)
    for index, line in enumerate(lines):
        body.append(line.render())
        body += deletion(dead.get(index, ()))
    groups = ["[" + ", ".join(group) + "]" for group in returns]
    body.append("return " + ", ".join(groups))
    return body


def _compile(name: str, source: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    filename = f"<pcgraph {name} {fresh_name()}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    exec(compile(source, filename, "exec"), namespace)
    function: Callable[..., Any] = namespace.pop(name)
    return function
