"""Files that a command is asked to write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import PCGraphError


def check_writable(path: Path, option: str, what: str = "the report") -> None:
    """Raise `PCGraphError` before the work rather than after it if `path` cannot be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PCGraphError(f"{what} cannot be written to {path}", hint=f"name a file in a folder that exists: {option}")


@contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """New files beside these, which take their places when all are written; after an error nothing has changed."""
    written = [path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}") for path in paths]
    try:
        yield written
        for temporary, path in zip(written, paths, strict=True):
            os.replace(temporary, path)
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)
