"""Passes: PCGraph in, PCGraph out; one file each, verified before and after."""

from .base import Pass
from .level import Level

PASSES: dict[str, type[Pass]] = {Level.name: Level}

__all__ = ["PASSES", "Level", "Pass"]
