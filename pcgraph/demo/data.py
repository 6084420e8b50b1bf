"""Real images for the demo: scikit-learn's digits, and FashionMNIST from a folder of IDX files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import PCGraphError
from .idx import read_idx
from .names import Source

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
INSTALL_FASHION_MNIST = "apt-get install dataset-fashion-mnist"
INSTALL_DIGITS = "pip install 'pcgraph[demo]'"
CLASSES = 10
HELD_BACK_DIGITS = 360  # of 1,797


@dataclass(frozen=True)
class Images:
    """Grey images and their classes, held-back ones apart.

    Attributes:
        name: of the data set.
        train_x, test_x: float32 [N, 1, side, side], 0 to 1.
        train_y, test_y: int64 [N], 0 to 9.
    """

    name: str
    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor

    @property
    def side(self) -> int:
        """Height and width in pixels."""
        return self.train_x.shape[-1]


def load(source: Source, seed: int, folder: Path | None = None, limit: int | None = None) -> Images:
    """Load a data set; `limit` keeps that many training images, drawn by the seed.

    Raises:
        PCGraphError: the data set or the library that ships it is not there, or a file is corrupt.
    """
    if source is Source.DIGITS:
        if folder is not None:
            raise PCGraphError("the digits come with scikit-learn, not from a folder", hint="--data fashion-mnist")
        images = _digits(seed)
    else:
        images = fashion_mnist(FASHION_MNIST if folder is None else folder)
    if limit is None or limit >= len(images.train_y):
        return images
    keep = _permutation(len(images.train_y), seed)[:limit]
    return Images(images.name, images.train_x[keep], images.train_y[keep], images.test_x, images.test_y)


def _digits(seed: int) -> Images:
    """1,797 images of 8x8 pixels, 0 to 16; the seed says which are held back."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise PCGraphError("the digits ship with scikit-learn, which is not installed", hint=INSTALL_DIGITS) from error
    digits = load_digits()
    x = torch.from_numpy(digits.images.astype(np.float32) / 16).unsqueeze(1)
    y = torch.from_numpy(digits.target.astype(np.int64))
    order = _permutation(len(y), seed)
    test, train = order[:HELD_BACK_DIGITS], order[HELD_BACK_DIGITS:]
    return Images("digits", x[train], y[train], x[test], y[test])


def fashion_mnist(folder: Path) -> Images:
    """The four IDX files of FashionMNIST (or of any data set in its form), plain or gzipped.

    Raises:
        PCGraphError: a file is missing or corrupt, images and labels do not match, or the images are not square.
    """
    train_x, train_y = _pair(folder, "train")
    test_x, test_y = _pair(folder, "t10k")
    if train_x.shape[1:] != test_x.shape[1:] or train_x.shape[2] != train_x.shape[3]:
        raise PCGraphError(
            f"{folder}: training images {list(train_x.shape)} and held-back images {list(test_x.shape)} "
            "must be square and of one size"
        )
    return Images("fashion-mnist", train_x, train_y, test_x, test_y)


def _pair(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), 3)
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"), 1)
    if len(pixels) != len(labels):
        raise PCGraphError(f"{folder}: {len(pixels):,} {part} images but {len(labels):,} labels")
    if labels.max() >= CLASSES:
        raise PCGraphError(f"{folder}: a {part} label is {labels.max()}, expected 0 to {CLASSES - 1}")
    return _scaled(pixels), torch.from_numpy(labels.astype(np.int64))


def _scaled(pixels: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / 255).unsqueeze(1)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise PCGraphError(
        f"there is no {name} or {name}.gz in {folder}",
        hint=f"{INSTALL_FASHION_MNIST}, or name a folder of IDX files with --data-dir",
    )


def _permutation(size: int, seed: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))
