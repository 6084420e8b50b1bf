"""What an imported file may cost, whoever wrote it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of an import. A file that exceeds one is refused with an `OnnxImportError`; raise it for files you trust.

    Attributes:
        folded_bytes: bytes of one constant that is computed at import, and of all of them together.
        nodes: nodes after local functions are inlined and functions of the schema expanded.
        trips: iterations of one Loop or Scan, at import and in the module.
        nesting: depth of graphs within graphs (If, Loop, Scan) and of functions that call functions.
        external_bytes: bytes of external data, all tensors together.
        seconds: seconds of the whole import.
    """

    folded_bytes: int = 256 * 2**20
    nodes: int = 200_000
    trips: int = 65_536
    nesting: int = 32
    external_bytes: int = 16 * 2**30
    seconds: float = 600.0
