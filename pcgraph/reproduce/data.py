"""Data sets of images that are there already: found, checked and normalised. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..demo.data import FASHION_MNIST, INSTALL_FASHION_MNIST
from ..demo.data import fashion_mnist as read_fashion_mnist
from .cell import NotRun

SYSTEM = Path("/usr/share/datasets")  # where Debian's packages put data sets
_ROWS = 10_000  # that are normalised at once


@dataclass(frozen=True)
class Split:
    """Images and their classes, held-back ones apart.

    Attributes:
        train_x, test_x: float32 [N, channels, height, width]; each channel of `train_x` has mean 0 and variance 1,
            and `test_x` is shifted and scaled like it.
        train_y, test_y: int64 [N], from 0 on.
        classes: how many there are.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int = 10

    def first(self, train: int | None, test: int | None) -> Split:
        """At most so many images of each part; None: all."""
        return Split(self.train_x[:train], self.train_y[:train], self.test_x[:test], self.test_y[:test], self.classes)


def fashion_mnist(folder: Path | None = None) -> Split:
    """FashionMNIST, [N, 1, 28, 28], from its four IDX files, plain or gzipped.

    Args:
        folder: with the files, or with ``fashion-mnist`` or ``FashionMNIST/raw`` in it. Otherwise, and if they are not
            there, the folder of Debian's package.

    Raises:
        NotRun: the files are nowhere.
        PCGraphError: a file is not what it should be.

    Source: Xiao et al., arXiv 1708.07747.
    """
    own = [] if folder is None else [folder / "fashion-mnist", folder / "FashionMNIST" / "raw", folder]
    found = find("FashionMNIST", [*own, FASHION_MNIST], _has_idx, INSTALL_FASHION_MNIST)
    images = read_fashion_mnist(found)
    return Split(*normalised(images.train_x, images.test_x, images.train_y, images.test_y))


def _has_idx(folder: Path) -> bool:
    name = "train-images-idx3-ubyte"
    return (folder / name).is_file() or (folder / f"{name}.gz").is_file()


def find(title: str, places: Sequence[Path], there: Callable[[Path], bool], how: str) -> Path:
    """The first of some folders that holds a data set.

    Raises:
        NotRun: none does; says `how` to get the data, and not where it looked: reports name no folders.
    """
    for place in places:
        if there(place):
            return place
    raise NotRun(f"data not available: {title} ({how})")


def normalised(
    train_x: Tensor, test_x: Tensor, train_y: Tensor, test_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of a `Split` from images of any kind of number, [N, channels, height, width], and classes [N].

    A channel that is the same everywhere becomes 0.
    """
    total, squares = torch.zeros(2, train_x.shape[1], dtype=torch.float64).unbind()
    for some in train_x.split(_ROWS):
        total += some.double().sum((0, 2, 3))
        squares += some.double().square().sum((0, 2, 3))
    count = train_x.numel() / train_x.shape[1]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    scale = torch.where(deviation > 0, 1 / deviation, 0.0)
    shift, scale = (-mean * scale).float().view(-1, 1, 1), scale.float().view(-1, 1, 1)
    return train_x.float() * scale + shift, train_y, test_x.float() * scale + shift, test_y
