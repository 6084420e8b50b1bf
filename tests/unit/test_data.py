"""The demo's data: the IDX format, strictly, and the two data sets."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pcgraph import PCGraphError
from pcgraph.demo.data import fashion_mnist, load
from pcgraph.demo.idx import read_idx
from pcgraph.demo.names import Source


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


PIXELS = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4) * 5
LABELS = np.array([0, 9, 4], dtype=np.uint8)


def test_reads_plain_and_gzipped(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "images", tmp_path / "images.gz"
    plain.write_bytes(idx(PIXELS))
    zipped.write_bytes(gzip.compress(idx(PIXELS)))
    for path in (plain, zipped):
        read = read_idx(path, 3)
        assert read.dtype == np.uint8
        assert np.array_equal(read, PIXELS)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "0 bytes are no IDX header"),
        (b"\0\0\x08", "3 bytes are no IDX header"),
        (b"\0\1" + idx(PIXELS)[2:], "magic number 0x00010803"),
        (b"\0\0\x0d" + idx(PIXELS)[3:], "magic number 0x00000d03"),
        (b"\0\0\x08\x01" + idx(PIXELS)[4:], "1 dimensions, expected 3"),
        (idx(PIXELS)[:10], "the header ends before its sizes do"),
        (idx(PIXELS)[:-1], "promise 48 bytes, the file holds 47"),
        (idx(PIXELS) + b"\0", "promise 48 bytes, the file holds 49"),
        (struct.pack(">HBB3I", 0, 8, 3, 0, 4, 4), "a size of 0"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "the file holds 0"),
    ],
)
def test_corrupt_files_are_refused(data: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.write_bytes(data)
    with pytest.raises(PCGraphError) as caught:
        read_idx(path, 3)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["not gzip", "cut", "flipped"])
def test_broken_gzip_is_refused(damage: str, tmp_path: Path) -> None:
    data = bytearray(gzip.compress(idx(PIXELS)))
    if damage == "not gzip":
        data = bytearray(idx(PIXELS))
    elif damage == "cut":
        data = data[:-9]
    else:
        data[-6] ^= 0xFF  # in the checksum
    path = tmp_path / "images.gz"
    path.write_bytes(data)
    with pytest.raises(PCGraphError, match="cannot be read"):
        read_idx(path, 3)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PCGraphError, match="cannot be read"):
        read_idx(tmp_path / "images", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data set in FashionMNIST's form, one half of it gzipped."""
    for part in ("train", "t10k"):
        images = tmp_path / f"{part}-images-idx3-ubyte"
        labels = tmp_path / f"{part}-labels-idx1-ubyte"
        if part == "train":
            images.with_name(images.name + ".gz").write_bytes(gzip.compress(idx(PIXELS)))
            labels.with_name(labels.name + ".gz").write_bytes(gzip.compress(idx(LABELS)))
        else:
            images.write_bytes(idx(PIXELS[:2]))
            labels.write_bytes(idx(LABELS[:2]))
    return tmp_path


def test_fashion_mnist_from_a_folder(folder: Path) -> None:
    images = load(Source.FASHION_MNIST, seed=0, folder=folder)
    assert images.name == "fashion-mnist"
    assert images.side == 4
    assert images.train_x.dtype == torch.float32
    assert torch.equal(images.train_x, torch.from_numpy(PIXELS.astype(np.float32) / 255).reshape(3, 1, 4, 4))
    assert torch.equal(images.train_y, torch.tensor([0, 9, 4]))
    assert images.test_x.shape == (2, 1, 4, 4)
    assert torch.equal(images.test_y, torch.tensor([0, 9]))


def test_limit_draws_by_the_seed(folder: Path) -> None:
    some = load(Source.FASHION_MNIST, seed=0, folder=folder, limit=2)
    again = load(Source.FASHION_MNIST, seed=0, folder=folder, limit=2)
    full = load(Source.FASHION_MNIST, seed=0, folder=folder, limit=3)
    assert len(some.train_y) == 2
    assert torch.equal(some.train_x, again.train_x)
    assert len(full.train_y) == 3
    assert len(some.test_y) == 2


def test_missing_part_names_the_install_line(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(PCGraphError) as caught:
        fashion_mnist(folder)
    assert "there is no t10k-labels-idx1-ubyte" in str(caught.value)
    assert "apt-get install dataset-fashion-mnist" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("t10k-labels-idx1-ubyte", LABELS, "2 t10k images but 3 labels"),
        ("t10k-labels-idx1-ubyte", LABELS[1:] + 1, "a t10k label is 10, expected 0 to 9"),
        ("t10k-images-idx3-ubyte", PIXELS[:2, :3, :3], "must be square and of one size"),
        ("t10k-images-idx3-ubyte", LABELS, "1 dimensions, expected 3"),
    ],
)
def test_parts_that_do_not_fit(name: str, array: NDArray[np.uint8], complaint: str, folder: Path) -> None:
    (folder / name).write_bytes(idx(np.ascontiguousarray(array)))
    with pytest.raises(PCGraphError) as caught:
        fashion_mnist(folder)
    assert complaint in str(caught.value)


def test_images_that_are_not_square(folder: Path) -> None:
    flat = np.ascontiguousarray(PIXELS[:, :2, :])
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(flat)))
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(flat[:2]))
    with pytest.raises(PCGraphError, match="must be square"):
        fashion_mnist(folder)


def test_digits() -> None:
    images = load(Source.DIGITS, seed=0)
    assert images.train_x.shape == (1437, 1, 8, 8)
    assert images.test_x.shape == (360, 1, 8, 8)
    assert images.train_x.dtype == torch.float32
    assert images.train_y.dtype == torch.int64
    assert (images.train_x.min(), images.train_x.max()) == (0, 1)
    assert sorted(images.test_y.unique().tolist()) == list(range(10))
    together = torch.cat([images.train_x, images.test_x]).flatten(1)
    from sklearn.datasets import load_digits

    original = torch.from_numpy(load_digits().data.astype(np.float32) / 16)
    assert torch.equal(together.sum(0), original.sum(0))
    assert len(together.unique(dim=0)) == len(original.unique(dim=0))


def test_the_seed_says_which_digits_are_held_back() -> None:
    first, again, other = (load(Source.DIGITS, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.test_x, again.test_x)
    assert not torch.equal(first.test_x, other.test_x)


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PCGraphError, match=r"pip install 'pcgraph\[demo\]'"):
        load(Source.DIGITS, seed=0)


def test_digits_come_from_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PCGraphError, match="not from a folder"):
        load(Source.DIGITS, seed=0, folder=tmp_path)
