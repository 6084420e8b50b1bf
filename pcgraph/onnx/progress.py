"""What an import tells of how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE = 0.1  # seconds


class Progress:
    """Passes on the beginning of every stage, and what comes after it not too often.

    Args:
        listener: takes the stage, and how many of how many are done; None for nobody.
    """

    def __init__(self, listener: Callable[[str, int, int], None] | None) -> None:
        self._listener = listener
        self._stage, self._told = "", 0.0

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Note how far it is."""
        if self._listener is None:
            return
        now = time.monotonic()
        if stage != self._stage or now - self._told >= _PAUSE:
            self._stage, self._told = stage, now
            self._listener(stage, done, total)
