"""Verdicts as lines of JSON: a run that was cut off goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from tests.opinfo.plan import Piece
from tests.opinfo.verdict import Class, judge


@dataclass(frozen=True)
class Record:
    """A verdict on one case, in words.

    Attributes:
        piece: the piece that the case belongs to.
        name: of the operation or module.
        role: see `tests.opinfo.cases.Role`.
        dtype: of the floating operands.
        index: which sample of the database.
        result: see `Class`.
        reason: the message, or what differs.
        calls: of the network.
        captures: how often it was captured for them.
        detail: the sample.
        once: why a program held for one call only.
    """

    piece: str
    name: str
    role: str
    dtype: str
    index: int
    result: Class
    reason: str
    calls: int
    captures: int
    detail: str
    once: str = ""

    @property
    def key(self) -> str:
        """The same as `tests.opinfo.cases.Case.key`."""
        return f"{self.name}|{self.role}|{self.dtype}|{self.index}"


def label(piece: Piece) -> str:
    """A piece in one word."""
    return f"{'module' if piece.module else 'operation'}|{piece.name}|{str(piece.dtype).removeprefix('torch.')}"


def run(piece: Piece) -> list[Record]:
    """Judge every case of a piece."""
    found = []
    for case in piece.cases():
        verdict = judge(case)
        dtype = str(case.dtype).removeprefix("torch.")
        found.append(
            Record(
                label(piece),
                case.name,
                case.role.value,
                dtype,
                case.index,
                verdict.result,
                verdict.reason,
                verdict.calls,
                verdict.captures,
                case.detail,
                verdict.once,
            )
        )
    return found


def load(path: Path | None) -> dict[str, list[Record]]:
    """The pieces that are done, by label."""
    done: dict[str, list[Record]] = {}
    if path is not None and path.exists():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            done[entry["piece"]] = [Record(**{**r, "result": Class(r["result"])}) for r in entry["records"]]
    return done


def append(path: Path | None, piece: str, records: list[Record]) -> None:
    """Note that a piece is done."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps({"piece": piece, "records": [dataclasses.asdict(r) for r in records]}) + "\n")
