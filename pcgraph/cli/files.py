"""Files that a command is asked to write."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import PCGraphError


def check_writable(path: Path, option: str) -> None:
    """Raise `PCGraphError` before the work rather than after it if `path` cannot be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PCGraphError(
            f"the report cannot be written to {path}", hint=f"name a file in a folder that exists: {option}"
        )
