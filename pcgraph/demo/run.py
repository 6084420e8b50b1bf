"""The demo from start to end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import PCGraphError
from .compare import figures
from .data import Images, load
from .names import TRAIN_IMAGES, Model, Source
from .recipes import RECIPES
from .report import environment
from .train import train

QUICK_STEPS = 4


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes:
        data: the data set.
        folder: of its IDX files; None for the usual place.
        models: networks to train, in this order.
        seed: of everything that is drawn.
        epochs: for every network; None for each recipe's own.
        batch: images per step.
        train_images: keep that many training images; None for the data set's usual number.
        threads: of torch. Networks this small gain little from a second one, and on a busy machine the threads
            spend their time waiting for one another.
        quick: a few steps only, to see that everything runs.
    """

    data: Source = Source.DIGITS
    folder: Path | None = None
    models: tuple[Model, ...] = tuple(Model)
    seed: int = 0
    epochs: int | None = None
    batch: int = 32
    train_images: int | None = None
    threads: int = 1
    quick: bool = False


def run(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Train every network with backprop and with Z-IL and compare.

    Args:
        settings: what to run.
        progress: a started progress display; each network's result is printed above it as soon as it is there.

    Returns:
        The report: ``exact``, ``settings``, ``networks`` (see `figures`), ``versions``, ``machine``, ``seconds``.

    Raises:
        PCGraphError: the data cannot be loaded, or there are fewer images than one batch needs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        return _run(settings, progress)
    finally:
        torch.set_num_threads(threads)


def _run(settings: Settings, progress: Progress) -> dict[str, Any]:
    started = time.perf_counter()
    limit = settings.train_images or TRAIN_IMAGES[settings.data]
    images = load(settings.data, settings.seed, settings.folder, limit)
    if len(images.train_y) < settings.batch:
        raise PCGraphError(f"{len(images.train_y)} training images are fewer than one batch of {settings.batch}")
    networks = []
    for model in settings.models:
        result = _one(model, images, settings, progress)
        networks.append(result)
        gap = result["largest_weight_difference"]
        progress.console.print(f"{result['network']}: {result['steps']} steps, largest difference of weights {gap:g}")
    return {
        "exact": all(one["exact"] for one in networks),
        "settings": {
            "data": settings.data.value,
            "train_images": len(images.train_y),
            "held_back_images": len(images.test_y),
            "image_side": images.side,
            "seed": settings.seed,
            "batch": settings.batch,
            "quick": settings.quick,
        },
        "networks": networks,
        **environment(),
        "seconds": time.perf_counter() - started,
    }


def progress_bar(console: Console) -> Progress:
    """A progress display on `console`: what, bar, steps done, time."""
    return Progress(
        TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _one(model: Model, images: Images, settings: Settings, progress: Progress) -> dict[str, Any]:
    recipe = RECIPES[model]
    epochs = settings.epochs or recipe.epochs[settings.data]
    limit = QUICK_STEPS if settings.quick else None
    total = epochs * (len(images.train_y) // settings.batch)
    task = progress.add_task(recipe.title, total=total if limit is None else min(total, limit))
    trained = train(
        recipe,
        images,
        seed=settings.seed,
        epochs=epochs,
        batch=settings.batch,
        limit=limit,
        advance=lambda: progress.advance(task),
    )
    return {"model": model.value, "epochs": epochs, **figures(recipe, trained, images)}
