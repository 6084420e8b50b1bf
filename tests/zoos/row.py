"""What was found out about one model, and where it is kept: one line of JSON each."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar


class Status(enum.StrEnum):
    """How a model came out; the order is that of the table's columns."""

    BITWISE = "bitwise"
    CLOSE = "close"  # differs by rounding
    REFUSED = "refused"  # a PCGraphError
    WRONG = "WRONG"
    FAILED = "failed"  # any other exception, or the process died
    TIMEOUT = "timeout"
    NONDETERMINISTIC = "nondeterministic"  # plain autograd differs from run to run
    UNTRAINABLE = "not trainable"  # plain autograd raises, or gives no finite gradient
    UNBUILT = "not built"  # the library could not build the model


class Kept:
    """A row of a zoo, kept as a line of JSON. A dataclass whose first fields are `library`, `model` and `status`.

    Attributes:
        statuses: how a model may come out; `FAILED` and `TIMEOUT` are among them.
    """

    statuses: ClassVar[Any]

    def line(self: Any) -> str:
        """As a line of JSON.

        >>> Row.read(Row("timm", "vit", Status.BITWISE, steps=3).line()).steps
        3
        """
        return json.dumps(asdict(self))

    @classmethod
    def read(cls: Any, line: str) -> Any:
        """From a line of JSON; fields that this version does not know are dropped."""
        known = {f.name for f in fields(cls)}
        given: dict[str, Any] = {key: value for key, value in json.loads(line).items() if key in known}
        return cls(**{**given, "status": cls.statuses(given["status"])})

    @classmethod
    def died(cls: Any, library: str, model: str, text: str) -> Any:
        """Of a model whose process died."""
        return cls(library, model, cls.statuses.FAILED, text)

    @classmethod
    def overdue(cls: Any, library: str, model: str, text: str) -> Any:
        """Of a model that took too long."""
        return cls(library, model, cls.statuses.TIMEOUT, text)


@dataclass
class Row(Kept):
    """One model.

    Attributes:
        library, model: what was run.
        status: how it came out.
        message: the error, or what differs; the first lines go into the table.
        traceback: of an error that was not foreseen.
        parameters: number of entries of all parameters.
        vertices, steps: of the compiled network; `steps` is T, the number of inference steps.
        opaque: reason -> number of vertices that stay opaque for it.
        once: why a program cannot be kept for the next call; empty if it is.
        capture, first, second, plain: seconds to capture and compile; of the first step, capture included; of the
            second step; of plain autograd's second step.
        lookup: microseconds that a repeated call spends on its signature and guards; 0 where it is captured again.
        moving: share of the parameters with a gradient in which that gradient is not all zero.
        differing: number of compared tensors that differ, and how many were compared.
        relative: largest difference over the tensor's largest entry, in float32 and, where it was run, in float64.
        notes: what the harness had to leave out.
        checks: what else was compared and came out equal.
        simpler: why the model as it is was refused, if that was so and a simpler form of it was tried.
        seconds: all of it.
        versions: of Python, torch, the library and pcgraph.
        date: when it ended.
    """

    statuses = Status
    library: str
    model: str
    status: Status
    message: str = ""
    traceback: str = ""
    parameters: int = 0
    vertices: int = 0
    steps: int = 0
    opaque: dict[str, int] = field(default_factory=dict)
    once: list[str] = field(default_factory=list)
    capture: float = 0.0
    first: float = 0.0
    second: float = 0.0
    plain: float = 0.0
    lookup: float = 0.0
    moving: float = 0.0
    differing: tuple[int, int] = (0, 0)
    relative: tuple[float, float | None] = (0.0, None)
    notes: list[str] = field(default_factory=list)
    checks: list[str] = field(default_factory=list)
    simpler: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""


R = TypeVar("R")


class Results(Generic[R]):
    """The rows of one library, in a file that grows by a line for every model; a later line replaces an earlier.

    Args:
        folder: where ``LIBRARY.jsonl`` is kept.
        library: its name.
        rows: the class of the rows.
    """

    def __init__(self, folder: Path, library: str, rows: type[Any] = Row) -> None:
        self.path = folder / f"{library}.jsonl"
        self.rows: dict[str, R] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                row = rows.read(line)
                self.rows[row.model] = row

    def add(self, row: Any) -> None:
        """Keep a row, on disk at once."""
        self.rows[row.model] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(row.line() + "\n")
