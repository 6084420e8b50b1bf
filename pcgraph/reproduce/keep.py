"""Results on disk: a line of JSON per cell, as soon as it is measured, so that a run goes on where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..errors import PCGraphError
from .cell import Cell, Found

FILE = "cells.jsonl"


class Kept:
    """The results in a folder.

    Args:
        folder: is made if it is missing.

    Raises:
        PCGraphError: the folder cannot be written, or holds results that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace(self._file, self._file.read_text() if self._file.exists() else "")  # now, not after an hour
        except OSError as error:
            raise PCGraphError(
                f"results cannot be kept in {folder}: {error.strerror}", hint="choose another folder: --output"
            ) from error
        self._found = self._read()

    def get(self, cell: Cell, versions: Mapping[str, str]) -> Found | None:
        """What was measured with the same settings and versions; a cell that was not run is tried again."""
        found = self._found.get(cell.key)
        return found if found is not None and not found.not_run and found.versions == versions else None

    def add(self, found: Found) -> None:
        """Keep a result, beside what another run may have put there meanwhile."""
        self._found = {**self._read(), found.key: found}
        lines = [json.dumps(asdict(item), allow_nan=False) + "\n" for item in self._found.values()]
        replace(self._file, "".join(lines))

    def _read(self) -> dict[str, Found]:
        found = {}
        for number, line in enumerate(self._file.read_text().splitlines(), 1):
            try:
                item = Found(**json.loads(line))
            except (ValueError, TypeError) as error:
                raise PCGraphError(
                    f"{self._file}, line {number} is no result: {error}",
                    hint="take the line out, or choose another folder: --output",
                ) from error
            found[item.key] = item
        return found


def replace(path: Path, text: str) -> None:
    """Write a file so that, whenever the machine stops, either the old one is there or the new one, whole."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
