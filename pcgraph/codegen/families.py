"""Families: kinds that differ in sizes alone. From two traced local programs of a family follows that of a third.

The traced calls are the same; where their numbers differ, each has to be a size, a stride, or a product of neighbouring
sizes of some tensor of the kind in both, and the third program gets the number that stands there in the third kind. It
is proven like a traced one (`check`); what does not fit is traced.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..graph.vertex import Slot, TensorSpec
from .kinds import Kind, freeze
from .lines import Line

if TYPE_CHECKING:
    from .local import LocalProgram

_MOST = 4096  # families
_NUMBER = re.compile(r"(?<![\w.])(?<!e[-+])(-?\d+)(?![\w.])")  # a whole one, not a part of 1e-05


class _Misfit(Exception):
    """The programs have no common form."""


@dataclass(frozen=True)
class _Member:
    numbers: tuple[int, ...]
    program: LocalProgram


class Families:
    """Local programs by the form of their kinds; the first two traced ones of each."""

    def __init__(self) -> None:
        self._members: dict[Any, list[_Member]] = {}

    def add(self, kind: Kind, program: LocalProgram, settings: Any) -> None:
        """Remember a program that was traced and proven."""
        members = self._members.setdefault((_form(kind), settings), [])
        if len(members) < 2:
            members.append(_Member(_numbers(kind), program))
        if len(self._members) > _MOST:
            self._members.pop(next(iter(self._members)))

    def derive(self, kind: Kind, settings: Any) -> LocalProgram | None:
        """The program of a kind as its family has it, not proven yet and without layouts; None if that says nothing."""
        members = self._members.get((_form(kind), settings), ())
        if len(members) < 2:
            return None
        a, b = members
        try:
            numbers = _Numbers(a.numbers, b.numbers, _numbers(kind))
            return _written(a.program, b.program, numbers)
        except _Misfit:
            return None


class _Numbers:
    """What stands in a third kind where two others have certain numbers."""

    def __init__(self, a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> None:
        self._found: dict[tuple[int, int], set[int]] = {}
        for x, y, z in zip(a, b, c, strict=True):
            self._found.setdefault((x, y), set()).add(z)

    def third(self, x: int, y: int) -> int:
        """The number where the traces have `x` and `y`."""
        if x == y:
            return x
        found = self._found.get((x, y), set())
        if len(found) != 1:
            raise _Misfit
        return next(iter(found))


def _form(kind: Kind) -> Any:
    """What kinds of one family have in common."""
    sizes = set(_of_specs(kind))
    operation = (
        freeze(kind.operation.target),
        _shape_of(kind.operation.args, sizes),
        tuple((name, _shape_of(value, sizes)) for name, value in kind.operation.kwargs),
    )
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
    if isinstance(value, tuple | list):
        return (type(value).__name__, tuple(_shape_of(item, sizes) for item in value))
    if isinstance(value, int) and not isinstance(value, bool) and value in sizes:
        return _shape_of
    return freeze(value)


def _numbers(kind: Kind) -> tuple[int, ...]:
    """All sizes of a kind, in an order that is the same for its whole family."""
    sizes = set(_of_specs(kind))
    arguments = _of_arguments((kind.operation.args, tuple(value for _, value in kind.operation.kwargs)), sizes)
    return (*_of_specs(kind), *arguments)


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
    if isinstance(value, tuple | list):
        for item in value:
            yield from _of_arguments(item, sizes)
    elif isinstance(value, int) and not isinstance(value, bool) and value in sizes:
        yield value


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _written(a: LocalProgram, b: LocalProgram, numbers: _Numbers) -> LocalProgram:
    same = ("outputs", "errors", "repeated", "wanted", "opaque")
    if any(getattr(a, name) != getattr(b, name) for name in same):
        raise _Misfit
    return replace(a, predict=_lines(a.predict, b.predict, numbers), learn=_lines(a.learn, b.learn, numbers))


def _lines(a: tuple[Line, ...], b: tuple[Line, ...], numbers: _Numbers) -> tuple[Line, ...]:
    if len(a) != len(b):
        raise _Misfit
    return tuple(_line(x, y, numbers) for x, y in zip(a, b, strict=True))


def _line(a: Line, b: Line, numbers: _Numbers) -> Line:
    if (a.outs, a.reads, len(a.constants)) != (b.outs, b.reads, len(b.constants)):
        raise _Misfit
    names: Mapping[str, str] = {}
    for (name, value), (other, same) in zip(a.constants, b.constants, strict=True):
        if value is not same and freeze(value) != freeze(same):
            raise _Misfit
        names = {**names, other: name}
    text = re.sub(r"\bk\d+\b", lambda match: names.get(match.group(), match.group()), b.text)
    parts, others = _NUMBER.split(a.text), _NUMBER.split(text)
    if len(parts) != len(others) or parts[::2] != others[::2]:
        raise _Misfit
    parts[1::2] = [str(numbers.third(int(x), int(y))) for x, y in zip(parts[1::2], others[1::2], strict=True)]
    return replace(a, text="".join(parts))
