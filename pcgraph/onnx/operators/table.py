"""The table of operators: which plain torch function computes which ONNX operator, since which opset version."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Operator:
    """One operator from one opset version on.

    Attributes:
        name: ``op_type`` of the node.
        domain: its domain, "" for ``ai.onnx``.
        since: first opset version of the domain that this function computes.
        function: takes the operands in order (None for those left out) and the attributes by name.
        literals: operands that the function reads in Python, such as shapes; constants there become Python numbers.
        scalars: operands of which constant scalars become Python numbers, other constants do not.
        settings: float operands that no gradient reaches or that are statistics: never parameters.
        fixed: float operands that are not weights by nature (a mask, a bound): parameters on request only.
        counted: whether the function takes ``outputs``, the number of outputs in use, and returns a tuple if it is
            more than one.
    """

    name: str
    domain: str
    since: int
    function: Callable[..., Any]
    literals: frozenset[int] = frozenset()
    scalars: frozenset[int] = frozenset()
    settings: frozenset[int] = frozenset()
    fixed: frozenset[int] = frozenset()
    counted: bool = False

    @cached_property
    def signature(self) -> inspect.Signature | None:
        """The function's; None of a builtin, which takes no attributes."""
        try:
            return inspect.signature(self.function)
        except (TypeError, ValueError):
            return None

    def check(self, operands: int, attributes: Iterable[str]) -> None:
        """Raise `ValueError` unless the function takes so many operands and these attributes.

        onnx's checker has looked at those of ai.onnx, and at no other domain's.
        """
        names = () if self.signature is None else self.signature.parameters
        unknown = next((name for name in attributes if name not in names), None)
        if unknown is not None:
            raise ValueError(f"it has no attribute {unknown[:80]!r}")
        if self.signature is not None:
            try:
                self.signature.bind(*[None] * operands, **dict.fromkeys(attributes))
            except TypeError as error:
                raise ValueError(f"operands or attributes are wrong: {error}") from error


_TABLE: dict[tuple[str, str], list[Operator]] = {}


def operator(
    *names: str,
    domain: str = "",
    since: int = 1,
    literals: tuple[int, ...] = (),
    scalars: tuple[int, ...] = (),
    settings: tuple[int, ...] = (),
    fixed: tuple[int, ...] = (),
    counted: bool = False,
) -> Callable[[F], F]:
    """Decorator: the function computes these operators; for the other arguments see `Operator`."""

    def register(function: F) -> F:
        for name in names:
            add(name, function, domain, since, literals, scalars, settings, fixed, counted)
        return function

    return register


def add(
    name: str,
    function: Callable[..., Any],
    domain: str = "",
    since: int = 1,
    literals: tuple[int, ...] = (),
    scalars: tuple[int, ...] = (),
    settings: tuple[int, ...] = (),
    fixed: tuple[int, ...] = (),
    counted: bool = False,
) -> None:
    """Register a function, such as one of torch's own."""
    versions = _TABLE.setdefault((domain, name), [])
    sets = (frozenset(literals), frozenset(scalars), frozenset(settings), frozenset(fixed))
    row = Operator(name, domain, since, function, *sets, counted)
    assert all(known.since != since for known in versions), f"{name} since {since} is there already"
    versions.append(row)
    versions.sort(key=lambda known: -known.since)


def find(domain: str, name: str, version: int) -> Operator | None:
    """The operator as the opset version defines it; None if the table has none."""
    return next((row for row in _TABLE.get((domain, name), ()) if row.since <= version), None)


def rows() -> list[Operator]:
    """Every row, by domain, name and version."""
    return sorted((row for rows in _TABLE.values() for row in rows), key=lambda row: (row.domain, row.name, row.since))
