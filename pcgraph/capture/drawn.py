"""Python's random number generators, and whether a run has drawn from them where no profiler looks.

Calls of their methods are seen, but not those that C code makes: ``map(generator.getrandbits, ...)``. So their states
are compared before and after. One that nobody drew from may lie beside a model as anything else may.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any


class Drawn:
    """The generators that were known while a run could still draw, and Python's own.

    Args:
        tell: is told why a run is valid once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell, self._over = tell, False
        self._own: Any = None
        self._near: list[tuple[random.Random, str, Any]] = []

    def open(self) -> None:
        """The run begins."""
        self._own = random.getstate()

    def meet(self, generator: random.Random, name: str) -> None:
        """One more generator."""
        if self._over or type(generator) is not random.Random:  # another class may keep its state elsewhere
            self._tell(f"{name} is a random number generator")
        else:
            self._near.append((generator, name, generator.getstate()))

    def close(self) -> None:
        """The run is over."""
        self._over = True
        if random.getstate() != self._own:
            self._tell("calls random.Random.random() or the like")
        for generator, name, state in self._near:
            if generator.getstate() != state:
                self._tell(f"{name} is a random number generator, from which the run draws")
