"""Which libraries have a zoo here. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from tests.zoos.specimen import Specimen

MODULES = {
    "torchvision": ("tests.zoos.torchvision_models", "tests.zoos.torchvision_tasks"),
    "timm": ("tests.zoos.timm_models",),
    "transformers": (
        "tests.zoos.transformers_sight",
        "tests.zoos.transformers_sound",
        "tests.zoos.transformers_text",
    ),
    "ecosystem": ("tests.zoos.ecosystem",),  # many small libraries; rows of those that are installed
}
LIBRARIES = tuple(MODULES)


def specimens(library: str) -> dict[str, Specimen]:
    """Every model of a library's zoo, by name.

    Raises:
        ImportError: the library is not installed.
        ValueError: two models have one name.
    """
    if library != "ecosystem":
        importlib.import_module(library)
    found: dict[str, Specimen] = {}
    for specimen in _all(library):
        if specimen.name in found:
            raise ValueError(f"two models of {library} are called {specimen.name}")
        found[specimen.name] = specimen
    return found


def _all(library: str) -> Iterator[Specimen]:
    for module in MODULES[library]:
        yield from importlib.import_module(module).specimens()
