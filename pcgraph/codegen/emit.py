"""Emission: lines become one straight-line Python function, every value freed after its last use."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .lines import Line, fresh_name


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
    kept = {item for group in returns for item in group}
    last: dict[str, int] = {}
    for index, line in enumerate(lines):
        for read in line.reads:
            last[read] = index
        for out in line.outs:
            last.setdefault(out, index)
    dying: dict[int, list[str]] = {}
    for read, index in last.items():
        if read not in kept:
            dying.setdefault(index, []).append(read)
    body = []
    namespace: dict[str, Any] = {}
    for argument, names in arguments:
        if names:
            body.append(f"[{', '.join(names)}] = {argument}")
            body.append(f"{argument}.clear()")
    unread = [n for _, names in arguments for n in names if n not in last and n not in kept]
    body += _deletions(unread)
    for index, line in enumerate(lines):
        namespace.update(line.constants)
        body.append(line.render())
        dead = dying.get(index)
        if dead:
            body.append(f"del {', '.join(dead)}")
    groups = ["[" + ", ".join(group) + "]" for group in returns]
    body.append("return " + ", ".join(groups))
    source = f"def {name}({', '.join(argument for argument, _ in arguments)}):\n  " + "\n  ".join(body) + "\n"
    return Emitted(_compile(name, source, namespace), source)


def _deletions(names: Iterable[str]) -> list[str]:
    names = list(names)
    return [f"del {', '.join(names)}"] if names else []


def _compile(name: str, source: str, namespace: dict[str, Any]) -> Callable[..., Any]:
    import torch

    namespace["torch"] = torch
    filename = f"<pcgraph {name} {fresh_name()}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    exec(compile(source, filename, "exec"), namespace)
    function: Callable[..., Any] = namespace.pop(name)
    return function
