"""The `pcgraph` command. It uses the public API only; one file per command."""

from .app import main

__all__ = ["main"]
