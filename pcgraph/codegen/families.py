"""Families: kinds that differ in sizes alone. From a few traced local programs of a family follow those of the others.

The traced calls are the same; where their numbers differ, each has to be a size, a stride, or a product of neighbouring
sizes of some tensor of its kind, and a new program gets the number that stands there in the new kind. It is proven like
a traced one (`check`). What does not fit is traced, and the family then knows more: 512 may have been a size of the
weight in two layers, until a third batch shows that it was that of the batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..graph.vertex import Operation, Slot, TensorSpec
from .kinds import Kind, freeze
from .lines import Line

if TYPE_CHECKING:
    from .local import LocalProgram

_MOST = 4096  # families
_MEMBERS = 6  # of one family that are traced, at least two
_NUMBER = re.compile(r"(?<![\w.])(?<!e[-+])(-?\d+)(?![\w.])")  # a whole one, not a part of 1e-05


class _Misfit(Exception):
    """The programs have no common form."""


@dataclass(frozen=True)
class _Member:
    numbers: tuple[int, ...]
    arguments: tuple[int, ...]  # the last of the numbers: those that the call was given
    program: LocalProgram


class Families:
    """Local programs by the form of their kinds; the first few traced ones of each."""

    def __init__(self) -> None:
        self._members: dict[Any, list[_Member]] = {}

    def add(self, kind: Kind, program: LocalProgram, settings: Any) -> None:
        """Remember a program that was traced and proven."""
        members = self._members.setdefault((_form(kind), settings), [])
        if len(members) < _MEMBERS:
            members.append(_Member(_numbers(kind), _arguments(kind), program))
        if len(self._members) > _MOST:
            self._members.pop(next(iter(self._members)))

    def derive(self, kind: Kind, settings: Any) -> LocalProgram | None:
        """The program of a kind as its family has it, not proven yet and without layouts; None if that says nothing."""
        members = self._members.get((_form(kind), settings), ())
        if len(members) < 2:
            return None
        for *known, number in zip(*(m.arguments for m in members), _arguments(kind), strict=True):
            if set(known) == {known[0]} != {number}:
                return None  # what it does to the program has never been seen
        try:
            return _written([m.program for m in members], _Numbers([m.numbers for m in members], _numbers(kind)))
        except _Misfit:
            return None


class _Numbers:
    """What stands in a new kind where the others have certain numbers."""

    def __init__(self, others: Sequence[tuple[int, ...]], new: tuple[int, ...]) -> None:
        self._found: dict[tuple[int, ...], set[int]] = {}
        for *known, number in zip(*others, new, strict=True):
            self._found.setdefault(tuple(known), set()).add(number)

    def new(self, known: tuple[int, ...]) -> int:
        """The number where the traces have these."""
        same = len(set(known)) == 1
        found = self._found.get(known, {known[0]} if same else set())
        if len(found) != 1:  # random data might not show the difference: of an index that is padding, a bound
            raise _Misfit
        return next(iter(found))


def _form(kind: Kind) -> Any:
    """What kinds of one family have in common."""
    sizes = set(_of_specs(kind))
    operation = _shape_of(kind.operation, sizes)
    arriving = tuple((index, _shape_of(spec, sizes)) for index, spec in (*kind.errors, *kind.collected))
    tensors = _shape_of((kind.operands, kind.outputs), sizes)
    return (operation, kind.places, kind.multi, kind.closed, tensors, len(kind.errors), arriving)


def _shape_of(value: Any, sizes: set[int]) -> Any:
    """An argument without its numbers, as far as they are sizes."""
    if isinstance(value, TensorSpec):
        order = tuple(sorted(range(len(value.stride)), key=lambda d: value.stride[d]))
        special = tuple((n == 1, s == 0) for n, s in zip(value.shape, value.stride, strict=bool(value.stride)))
        dense = value.stride == _dense(value.shape)
        return (order, special, dense, len(value.shape), value.dtype, value.device, value.requires_grad)
    if isinstance(value, Slot):
        return freeze(value)
    if isinstance(value, Operation):
        named = tuple((name, _shape_of(given, sizes)) for name, given in value.kwargs)
        return (freeze(value.target), _shape_of(value.args, sizes), named)
    if isinstance(value, tuple | list):
        return (type(value).__name__, tuple(_shape_of(item, sizes) for item in value))
    if isinstance(value, int) and not isinstance(value, bool) and value in sizes:
        return _shape_of
    return freeze(value)


def _numbers(kind: Kind) -> tuple[int, ...]:
    """All sizes of a kind, in an order that is the same for its whole family."""
    return (*_of_specs(kind), *_arguments(kind))


def _arguments(kind: Kind) -> tuple[int, ...]:
    """The arguments of the call that are sizes, or happen to equal one."""
    return tuple(_of_arguments(kind.operation, set(_of_specs(kind))))


def _of_specs(kind: Kind) -> Iterator[int]:
    arriving = (spec for _, spec in (*kind.errors, *kind.collected))
    for spec in (*kind.operands, *kind.outputs, *arriving):
        if spec is None:
            continue
        for start in range(len(spec.shape)):
            for end in range(start + 1, len(spec.shape) + 1):
                yield math.prod(spec.shape[start:end])
        yield from spec.stride


def _of_arguments(value: Any, sizes: set[int]) -> Iterator[int]:
    if isinstance(value, Operation):
        yield from _of_arguments((value.args, [given for _, given in value.kwargs]), sizes)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _of_arguments(item, sizes)
    elif isinstance(value, int) and not isinstance(value, bool) and value in sizes:
        yield value


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _written(programs: Sequence[LocalProgram], numbers: _Numbers) -> LocalProgram:
    first, *others = programs
    same = ("outputs", "errors", "repeated", "wanted", "opaque")
    if any(getattr(first, name) != getattr(other, name) for other in others for name in same):
        raise _Misfit
    predict = _lines([program.predict for program in programs], numbers)
    return replace(first, predict=predict, learn=_lines([program.learn for program in programs], numbers))


def _lines(bodies: Sequence[tuple[Line, ...]], numbers: _Numbers) -> tuple[Line, ...]:
    if len({len(body) for body in bodies}) != 1:
        raise _Misfit
    return tuple(_line(lines, numbers) for lines in zip(*bodies, strict=True))


def _line(lines: Sequence[Line], numbers: _Numbers) -> Line:
    first = lines[0]
    split = [_NUMBER.split(_like(line, first)) for line in lines]
    words = split[0][::2]
    if any(parts[::2] != words for parts in split):
        raise _Misfit
    parts = split[0]
    parts[1::2] = [str(numbers.new(tuple(map(int, known)))) for known in zip(*(p[1::2] for p in split), strict=True)]
    return replace(first, text="".join(parts))


def _like(line: Line, first: Line) -> str:
    """The text of a line with the names that another has for the same constants."""
    if (line.outs, line.reads, len(line.constants)) != (first.outs, first.reads, len(first.constants)):
        raise _Misfit
    names: dict[str, str] = {}
    for (name, value), (other, same) in zip(first.constants, line.constants, strict=True):
        if value is not same and freeze(value) != freeze(same):
            raise _Misfit
        names[other] = name
    return re.sub(r"\bk\d+\b", lambda match: names.get(match.group(), match.group()), line.text)
