"""What was found out about one file, and where it is kept: one line of JSON each."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from tests.zoos.row import Kept


class Status(enum.StrEnum):
    """How a file came out; the order is that of the table's columns."""

    PASSED = "passes"  # all that is judged holds
    REFUSED = "refused"  # an OnnxImportError or another error of pcgraph
    APART = "onnxruntime is apart"  # what fails is onnxruntime: the import is nearer to what the file means
    WRONG = "WRONG"  # imported, and something that is judged does not hold
    FAILED = "failed"  # any other exception, or the process died
    TIMEOUT = "timeout"
    CORPUS = "corpus holds"  # nothing imported: the file was written and onnxruntime agrees with torch
    UNFIT = "no file"  # the exporter fails, or onnxruntime does not run its file or computes something else than torch
    NOT_RUN = "not run"


@dataclass
class Row(Kept):
    """One file.

    Attributes:
        library, model: part of the zoo, and name there.
        status: how it came out.
        message: the error, or everything that does not hold, a line each.
        traceback: of an error that was not foreseen.
        origin: what wrote the file, or the package that ships it.
        opsets: of the file, by domain.
        nodes, bytes: of the file, external data included.
        importing: seconds that `from_onnx` takes.
        original: tensors and entries of the parameters of the torch model; in `packages`, of the file's floats.
        imported: tensors and entries of the imported module's parameters.
        fused, folded, untied, lost, extra: names, see `matching.Account`.
        exported: batch size -> relative error of onnxruntime against torch.
        forward: batch size -> relative error of the import against onnxruntime.
        gradient: largest relative error of a gradient, in float32 and in float64; and how many were judged in float64.
        compared: gradients compared.
        moving: share of them that are not all zero.
        named: parameters whose name in the file is torch's.
        compiled: mode -> status of the compiled network against autograd on the imported module.
        vertices, steps: of the compiled network.
        round_trip: relative error of the file written after one step; None if it was not tried.
        notes: what the harness had to leave out.
        seconds: all of it.
        versions: of Python and packages.
        date: when it ended.
    """

    statuses = Status
    library: str
    model: str
    status: Status
    message: str = ""
    traceback: str = ""
    origin: str = ""
    opsets: dict[str, int] = field(default_factory=dict)
    nodes: int = 0
    bytes: int = 0
    importing: float = 0.0
    original: tuple[int, int] = (0, 0)
    imported: tuple[int, int] = (0, 0)
    fused: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    exported: dict[str, float] = field(default_factory=dict)
    forward: dict[str, float] = field(default_factory=dict)
    gradient: tuple[float, float | None, int] = (0.0, None, 0)
    compared: int = 0
    moving: float = 0.0
    named: int = 0
    compiled: dict[str, str] = field(default_factory=dict)
    vertices: int = 0
    steps: int = 0
    round_trip: float | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    date: str = ""
