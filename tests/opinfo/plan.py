"""What there is to run, in pieces that a process can take."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tests.opinfo import database
from tests.opinfo.cases import Case, Role
from tests.opinfo.layers import cases_of_module, dtypes_of_module
from tests.opinfo.operations import cases_of, dtypes_of

OF_OPERATIONS = (Role.PARAMETER, Role.INPUT, Role.METHOD, Role.INPLACE)
OF_MODULES = (Role.TRAIN, Role.EVAL)


@dataclass(frozen=True)
class Piece:
    """All cases of one operation or module in one type.

    Attributes:
        module: whether it is a module of `torch.nn`.
        place: index in the database.
        name: of the operation or module, with its variant.
        dtype: of the floating operands.
        most: samples at most.
        roles: that the operands or the module take.
    """

    module: bool
    place: int
    name: str
    dtype: torch.dtype
    most: int
    roles: tuple[Role, ...]

    def cases(self) -> Iterator[Case]:
        """Made anew; the samples of the database are seeded."""
        if self.module:
            info = database.modules()[self.place]
            for role in self.roles:
                yield from cases_of_module(info, self.dtype, self.most, role)
        else:
            yield from cases_of(database.operations()[self.place], self.dtype, self.most, self.roles)


def everything(most: int, pattern: str = "*") -> list[Piece]:
    """All pieces whose name matches a pattern, operations first."""
    pieces = [
        Piece(False, place, op.full_name, dtype, most, OF_OPERATIONS)
        for place, op in enumerate(database.operations())
        for dtype in dtypes_of(op)
    ]
    pieces += [
        Piece(True, place, info.name, dtype, most, OF_MODULES)
        for place, info in enumerate(database.modules())
        for dtype in dtypes_of_module(info)
    ]
    return [piece for piece in pieces if fnmatch.fnmatchcase(piece.name, pattern)]
