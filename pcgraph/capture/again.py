"""A model that differentiates inside has to run twice to be captured: the second run must find what the first found."""

from __future__ import annotations

import collections
import random
from typing import Any

import numpy as np
import torch

from ..errors import CaptureError
from .pystate import PythonState

_DEPTH = 4  # of containers within each other on a module
_CONTAINERS = {dict, list, collections.deque, collections.OrderedDict, collections.defaultdict}
_EMPTY: tuple[Any, Any] = ((), {})
_ADVANCING = (" is a random number generator", ".generator,", "_iterator,", " is a itertools.", " is a numpy.random.")
_HARMLESS = ("calls print()", "calls time.", "calls random.Random.")  # to do twice; Python's own numbers are put back


class Unrepeatable(CaptureError):
    """The run that was broken off has changed something that cannot be put back."""


class Before:
    """What the modules of a model hold, and Python's random numbers, as they were before the run."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._saved: dict[int, tuple[Any, Any]] = {}
        for module in model.modules():
            self._save(vars(module), 0)
        self._random, self._numpy = random.getstate(), np.random.get_state()

    def restore(self, state: PythonState, where: str) -> None:
        """Put everything back.

        Raises:
            Unrepeatable: `state` knows of something that the run did besides.
        """
        random.setstate(self._random)
        np.random.set_state(self._numpy)
        for container, saved in self._saved.values():
            if isinstance(container, dict):
                if list(container) != list(saved) or any(saved[key] is not container[key] for key in saved):
                    container.clear()
                    container.update(saved)
            elif len(container) != len(saved) or any(a is not b for a, b in zip(container, saved, strict=True)):
                container.clear()
                container.extend(saved)
        done = [f"changes {name or 'the model'}" for name in state.changes()]
        done += [text for text in state.reasons if text.startswith("calls ") and not text.startswith(_HARMLESS)]
        done += [f"may have advanced one: {t}" for t in state.reasons if any(word in t.lower() for word in _ADVANCING)]
        if done:
            raise Unrepeatable(
                f"the model differentiates while it runs, and has to run a second time for that; but it {done[0]}",
                where=where,
                hint="call the network again: it is captured in one run from now on; or do that after the call",
            )

    def _save(self, container: Any, depth: int) -> None:
        if id(container) in self._saved:
            return
        self._saved[id(container)] = container, container.copy() if container else _EMPTY[isinstance(container, dict)]
        if container and depth < _DEPTH:
            for value in container.values() if isinstance(container, dict) else container:
                if type(value) in _CONTAINERS:
                    self._save(value, depth + 1)
