"""Passes: PCGraph in, PCGraph out; one file each, verified before and after."""

from .base import Pass
from .fold import Fold
from .level import Level

PASSES: dict[str, type[Pass]] = {Fold.name: Fold, Level.name: Level}

__all__ = ["PASSES", "Fold", "Level", "Pass"]
