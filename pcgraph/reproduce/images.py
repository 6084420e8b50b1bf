"""Folders of pictures in ImageNet's layout: a folder per class, for training and apart from it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import PCGraphError
from .cell import NotRun
from .data import SYSTEM, Split, find, normalised

SUFFIXES = (".jpeg", ".jpg", ".png")
MOST_PIXELS = 100_000_000  # of a picture, by its header; ImageNet's largest has 47 million
_HOW = "https://image-net.org/download.php, unpacked into --data FOLDER as imagenet/train/CLASS and imagenet/val/CLASS"


@dataclass(frozen=True)
class Share:
    """How much of a large set is read: pictures and classes, the first by name.

    Attributes:
        classes: at most.
        train: pictures of each class for training, at most.
        test: pictures of each class held back, at most.
    """

    classes: int
    train: int
    test: int


def image_folder(folder: Path | None, size: int, share: Share) -> Split:
    """Pictures, [N, 3, size, size], from ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``.

    The shorter side is scaled to `size`, and the middle is cut out. The classes are those of ``train``, by name. The
    order of the training pictures goes through the classes in turn, so that the first few are of all of them.

    Args:
        folder: of data sets, with ``imagenet`` or ``ILSVRC2012`` in it; or the set itself.
        size: height and width, in pixels.
        share: how much of it.

    Raises:
        NotRun: there are no such folders, or Pillow is not installed.
        PCGraphError: a class is empty, or a file is no picture.
    """
    root = SYSTEM if folder is None else folder
    places = [root / "imagenet", root / "ILSVRC2012", root]
    found = find("ImageNet", places, lambda place: all((place / part).is_dir() for part in ("train", "val")), _HOW)
    if importlib.util.find_spec("PIL") is None:
        raise NotRun("install Pillow: pip install pillow")
    classes = sorted(path.name for path in (found / "train").iterdir() if path.is_dir())[: share.classes]
    if not classes:
        raise PCGraphError(f"{found / 'train'} has no folder of a class", hint="lay it out as train/<class>/*.JPEG")
    train_x, train_y = _part(found / "train", classes, size, share.train)
    test_x, test_y = _part(found / "val", classes, size, share.test)
    return Split(*normalised(train_x, test_x, train_y, test_y), classes=len(classes))


def _part(folder: Path, classes: list[str], size: int, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels uint8 [N, 3, size, size] and classes int64 [N]."""
    chosen = [
        (place, label, path) for label, name in enumerate(classes) for place, path in _files(folder / name, limit)
    ]
    chosen.sort()
    pixels = np.stack([_pixels(path, size) for _, _, path in chosen])
    return torch.from_numpy(pixels), torch.tensor([label for _, label, _ in chosen])


def _files(folder: Path, limit: int) -> list[tuple[int, Path]]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)[:limit]
    if not paths:
        raise PCGraphError(
            f"{folder} has no pictures", hint="lay the set out as train/<class>/*.JPEG, val/<class>/*.JPEG"
        )
    return list(enumerate(paths))


def _pixels(path: Path, size: int) -> NDArray[np.uint8]:
    """One picture, uint8 [3, size, size]."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels are too many")
            image.draft("RGB", (size, size))  # a JPEG is decoded near to the size that is wanted
            width, height = image.size
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PCGraphError(f"{path} is not a picture: {error}", hint="get the file again, or take it away") from error
    return np.asarray(square, np.uint8).transpose(2, 0, 1)
