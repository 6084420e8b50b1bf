"""Codegen: a scheduled graph becomes a prediction and a learning program. Never sees the user's module."""

from .backends import backend_of
from .inference import Inference
from .learning import Learning
from .numerics import numerics_kept
from .precision import without_autocast
from .program import Program
from .slopes import slopes
from .waves import ErrorInference, FixedInference

__all__ = [
    "ErrorInference",
    "FixedInference",
    "Inference",
    "Learning",
    "Program",
    "backend_of",
    "numerics_kept",
    "slopes",
    "without_autocast",
]
