"""Codegen: a scheduled graph becomes a prediction and a learning program. Never sees the user's module."""

from .backends import backend_of
from .learning import Learning
from .numerics import numerics_kept
from .precision import without_autocast
from .program import Program

__all__ = ["Learning", "Program", "backend_of", "numerics_kept", "without_autocast"]
