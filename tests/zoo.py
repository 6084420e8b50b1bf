"""The zoo: every model that pcgraph must learn exactly like backprop."""

from __future__ import annotations

from tests.models import attention, feedforward, operations, programs, recurrent, structure, vision, writes
from tests.models.case import FLOATS, WIDE, Case, Made, Registry, own_loss, seed_all, weighted_squares

__all__ = ["FLOATS", "WIDE", "ZOO", "Case", "Made", "Registry", "own_loss", "seed_all", "weighted_squares"]

ZOO: dict[str, Case] = {}
for _part in (feedforward, vision, attention, recurrent, structure, operations, writes, programs):
    _again = ZOO.keys() & _part.MODELS.keys()
    assert not _again, f"two models of the zoo are called {sorted(_again)}"
    ZOO.update(_part.MODELS)
