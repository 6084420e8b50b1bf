"""Lifetimes: behind which line each name of a program is used for the last time."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from .lines import Line


def last_uses(lines: Sequence[Line]) -> dict[str, int]:
    """By name, the line that reads it last; for a name that nothing reads, the line that makes it."""
    last: dict[str, int] = {}
    for index, line in enumerate(lines):
        for read in line.reads:
            last[read] = index
        for out in line.outs:
            last.setdefault(out, index)
    return last


def dying(last: dict[str, int], kept: Container[str]) -> dict[int, list[str]]:
    """By line, the names that are let go behind it.

    Args:
        last: see `last_uses`.
        kept: names that outlive the program.
    """
    found: dict[int, list[str]] = {}
    for name, index in last.items():
        if name not in kept:
            found.setdefault(index, []).append(name)
    return found


def deletion(names: Iterable[str]) -> list[str]:
    """Source that lets go of names; nothing for none."""
    names = list(names)
    return [f"del {', '.join(names)}"] if names else []
