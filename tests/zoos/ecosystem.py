"""Many small libraries: one model or a few of each, tiny and with random weights. What is not installed is left out.

A row is a function that makes a model and, for a batch size, its arguments (a tuple, or a dict of keywords).
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from tests.zoos.specimen import Specimen

PARTS = ("images", "sequences", "graphs", "flows")
Feed = Callable[[int], "tuple[Any, ...] | dict[str, Any]"]
Made = tuple[nn.Module, Feed]

_ROWS: dict[str, tuple[str, Callable[[], Made]]] = {}


def specimens() -> Iterator[Specimen]:
    """Of every package that is installed; the others are named on stderr."""
    for part in PARTS:
        importlib.import_module(f"tests.zoos.ecosystem_{part}")
    absent = set()
    for name, (package, make) in _ROWS.items():
        try:
            version(package)
        except PackageNotFoundError:
            absent.add(package)
        else:
            yield _specimen(f"{package} {name.removeprefix(_prefix(package))}", package, make)
    if absent:
        print(f"not installed: {', '.join(sorted(absent))}", file=sys.stderr)


def _specimen(name: str, package: str, make: Callable[[], Made]) -> Specimen:
    made = functools.cache(make)  # the model belongs to its feed; who judges copies it

    def batch(size: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = made()[1](size)
        return ((), given) if isinstance(given, dict) else (given, {})

    return Specimen("ecosystem", name, lambda: made()[0], lambda: batch(2), package=package, batch=batch)


def _prefix(package: str) -> str:
    return package.replace("-", "_").lower() + "_"


def row(package: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Register the decorated function under its own name, which is that of the row."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        assert make.__name__ not in _ROWS, f"two rows are called {make.__name__}"
        _ROWS[make.__name__] = (package, make)
        return make

    return register


class Using(nn.Module):
    """A model called in another way than by its ``forward``."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *args: Any) -> Any:
        return self.call(self.model, *args)


def images(channels: int = 3, side: int = 32) -> Feed:
    return lambda n: (torch.randn(n, channels, side, side),)


def vectors(*shape: int) -> Feed:
    return lambda n: (torch.randn(n, *shape),)


def tokens(length: int = 16, bound: int = 50) -> Feed:
    return lambda n: (torch.randint(bound, (n, length)),)
