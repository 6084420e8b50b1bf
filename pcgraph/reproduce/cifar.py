"""CIFAR-10 in its binary version and in its version for Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import PCGraphError
from .data import SYSTEM, Split, find, normalised
from .pickles import read_pickle

TRAIN = tuple(f"data_batch_{k}" for k in range(1, 6))
TEST = ("test_batch",)
CLASSES = 10
_PIXELS = 3 * 32 * 32
_AGAIN = "get the data set again"
_HOW = "https://www.cs.toronto.edu/~kriz/cifar.html, the binary version or that for Python, unpacked into --data FOLDER"


def cifar10(folder: Path | None = None) -> Split:
    """CIFAR-10, [N, 3, 32, 32], from a folder of data sets with ``cifar-10-batches-bin`` or ``cifar-10-batches-py``.

    Pickles are read by `read_pickle`, which runs nothing that they say.

    Raises:
        NotRun: the files are nowhere.
        PCGraphError: a file is missing or not what it should be.

    Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.
    """
    root = SYSTEM if folder is None else folder
    places = [root / "cifar-10-batches-bin", root / "cifar-10-batches-py", root]
    found = find("CIFAR-10", places, lambda place: _file(place, TRAIN[0]) is not None, _HOW)
    train_x, train_y = _read(found, TRAIN)
    test_x, test_y = _read(found, TEST)
    return Split(*normalised(train_x, test_x, train_y, test_y))


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.bin", folder / name) if path.is_file()), None)


def _read(folder: Path, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels uint8 [N, 3, 32, 32] and classes int64 [N] of some batches, one after the other."""
    pixels, labels = [], []
    for name in names:
        path = _file(folder, name)
        if path is None:
            raise PCGraphError(f"there is no {name} or {name}.bin in {folder}", hint=_AGAIN)
        some, classes = _binary(path) if path.suffix == ".bin" else _pickled(path)
        if classes.max() >= CLASSES:
            raise PCGraphError(f"{path}: a label is {classes.max()}, expected 0 to {CLASSES - 1}", hint=_AGAIN)
        pixels.append(some)
        labels.append(classes)
    images = np.concatenate(pixels).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images), torch.from_numpy(np.concatenate(labels).astype(np.int64))


def _binary(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Records of a label and 3,072 pixels: [N, 3072] and [N]."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PCGraphError(f"{path} cannot be read: {error}", hint=_AGAIN) from error
    if not data or len(data) % (1 + _PIXELS):
        raise PCGraphError(f"{path}: {len(data):,} bytes are not whole records of {1 + _PIXELS:,}", hint=_AGAIN)
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


def _pickled(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A dict with ``data``, uint8 [N, 3072], and ``labels``, a list of N: both as arrays."""
    content = read_pickle(path)
    pixels, labels = content.get("data"), content.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or not len(pixels):
        raise PCGraphError(f"{path}: `data` is not an array of bytes [N, {_PIXELS}]", hint=_AGAIN)
    if not isinstance(labels, list) or not all(type(n) is int and 0 <= n < 256 for n in labels):
        raise PCGraphError(f"{path}: `labels` is not a list of small numbers", hint=_AGAIN)
    if len(labels) != len(pixels):
        raise PCGraphError(f"{path}: {len(pixels):,} images but {len(labels):,} labels", hint=_AGAIN)
    return pixels, np.array(labels, np.uint8)
