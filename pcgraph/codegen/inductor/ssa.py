"""Single assignment: errors that are added up in place become values of their own, one per sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..lines import Line

ADD = "%s + %s"
_ADD_IN_PLACE = "%s.add_(%s)"  # how a sweep adds to a sum that nobody else holds


def single_assignment(
    lines: Sequence[Line], returns: Sequence[tuple[str, ...]]
) -> tuple[list[Line], list[tuple[str, ...]]]:
    """The same lines with every name assigned once, and the returned names as they are then.

    >>> lines = [Line(("s",), "%s + %s", ("a", "b")), Line((), "%s.add_(%s)", ("s", "c"))]
    >>> [line.render() for line in single_assignment(lines, [])[0]]
    ['s = a + b', 's__1 = s + c']
    """
    now: dict[str, str] = {}
    versions: dict[str, int] = {}

    def fresh(name: str) -> str:
        if name in versions:
            versions[name] += 1
            now[name] = f"{name}__{versions[name]}"
        else:
            versions[name] = 0
            now[name] = name
        return now[name]

    result = []
    for line in lines:
        reads = tuple(now.get(name, name) for name in line.reads)
        if line.text == _ADD_IN_PLACE and line.target is None:
            target = line.reads[0]
            versions.setdefault(target, 0)
            result.append(Line((fresh(target),), ADD, reads))
        else:
            result.append(replace(line, outs=tuple(map(fresh, line.outs)), reads=reads))
    return result, [tuple(now.get(name, name) for name in group) for group in returns]
