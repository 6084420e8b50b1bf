"""Codegen: a scheduled graph becomes a prediction and a learning program. Never sees the user's module."""

from .program import Program

__all__ = ["Program"]
