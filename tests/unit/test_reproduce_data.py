"""The data sets of `pcgraph reproduce`, strictly; and its training, on a few images."""

from __future__ import annotations

import codecs
import gzip
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pcgraph.reproduce.data as data
from pcgraph import PCGraphError
from pcgraph.reproduce import training
from pcgraph.reproduce.cell import Found, NotRun, Settings
from pcgraph.reproduce.cifar import TEST, TRAIN, cifar10
from pcgraph.reproduce.data import Split, fashion_mnist
from pcgraph.reproduce.images import Share, image_folder
from pcgraph.reproduce.pickles import read_pickle

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 9, 4, 1, 1, 3], np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


# -- FashionMNIST --------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the system has no data set."""
    monkeypatch.setattr(data, "FASHION_MNIST", tmp_path / "system")
    return tmp_path


def write_fashion(folder: Path, zipped: bool) -> None:
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name, array in ((f"{part}-images-idx3-ubyte", PIXELS), (f"{part}-labels-idx1-ubyte", LABELS)):
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("place", ["fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist(place: str, zipped: bool, nowhere: Path) -> None:
    write_fashion(nowhere / place, zipped)
    split = fashion_mnist(nowhere)
    assert split.train_x.shape == split.test_x.shape == (6, 1, 28, 28)
    assert split.train_x.dtype == torch.float32
    assert split.train_y.tolist() == split.test_y.tolist() == LABELS.tolist()
    assert split.train_y.dtype == torch.int64
    expected = torch.from_numpy((PIXELS - PIXELS.mean()) / PIXELS.std()).unsqueeze(1).float()
    torch.testing.assert_close(split.train_x, expected, atol=1e-5, rtol=0)  # float32 against float64
    assert torch.equal(split.train_x, split.test_x)


def test_ones_own_comes_first(nowhere: Path) -> None:
    write_fashion(nowhere / "system", zipped=True)
    (nowhere / "system" / "train-labels-idx1-ubyte.gz").write_bytes(b"")  # would be refused
    write_fashion(nowhere / "own", zipped=False)
    assert len(fashion_mnist(nowhere / "own").train_y) == 6
    with pytest.raises(PCGraphError, match="0 bytes are no IDX header"):
        fashion_mnist(nowhere)


def test_no_fashion_mnist(nowhere: Path) -> None:
    with pytest.raises(NotRun, match=r"data not available: FashionMNIST \(apt-get install") as caught:
        fashion_mnist(nowhere)
    assert str(nowhere) not in str(caught.value)  # a report names no folders


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (idx(PIXELS)[:-1], "promise 4,704 bytes, the file holds 4,703"),
        (struct.pack(">HBB3I", 0, 8, 3, 10**6, 1000, 1000), "promise 1,000,000,000,000 bytes, the file holds 0"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_that_lies(content: bytes, complaint: str, zipped: bool, nowhere: Path) -> None:
    write_fashion(nowhere / "fashion-mnist", zipped)
    path = nowhere / "fashion-mnist" / ("train-images-idx3-ubyte" + (".gz" if zipped else ""))
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(PCGraphError) as caught:
        fashion_mnist(nowhere)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_channel_that_is_the_same_everywhere() -> None:
    one = torch.full((3, 1, 2, 2), 7, dtype=torch.uint8)
    shifted, *_ = data.normalised(one, one, torch.zeros(3), torch.zeros(3))
    assert torch.equal(shifted, torch.zeros(3, 1, 2, 2))


# -- CIFAR-10 ------------------------------------------------------------------------------------

ROWS = np.random.default_rng(1).integers(0, 256, (4, 3072), dtype=np.uint8)
CLASSES = [3, 0, 9, 3]


def records() -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(CLASSES, ROWS, strict=True))


def of_python_2(array: NDArray[np.uint8], labels: list[int]) -> bytes:
    """A batch as the authors' Python 2 wrote it: protocol 2, and text for everything."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87Rq\x04"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    blank = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    shape = number(array.shape[0]) + number(array.shape[1]) + b"\x86"
    state = b"(" + number(1) + shape + kind + b"\x89" + text(array.tobytes()) + b"tb"
    listed = b"](" + b"".join(number(n) for n in labels) + b"e"
    items = text(b"data") + blank + state + text(b"labels") + listed + text(b"batch_label") + text(b"batch 1 of 5")
    return b"\x80\x02}q\x01(" + items + b"u."


def batch_of(array: Any = ROWS, labels: Any = CLASSES, protocol: int = 4) -> bytes:
    return pickle.dumps({b"data": array, b"labels": labels}, protocol=protocol)


def write_cifar(folder: Path, ending: str, content: bytes) -> None:
    folder.mkdir()
    for name in (*TRAIN, *TEST):
        (folder / f"{name}{ending}").write_bytes(content)


@pytest.mark.parametrize(
    ("place", "ending", "content"),
    [
        ("cifar-10-batches-bin", ".bin", records()),
        ("cifar-10-batches-py", "", of_python_2(ROWS, CLASSES)),
        ("cifar-10-batches-py", "", batch_of()),
        ("cifar-10-batches-py", "", batch_of(protocol=3)),
        ("cifar-10-batches-py", "", batch_of(protocol=2)),
    ],
    ids=["binary", "Python 2", "protocol 4", "protocol 3", "protocol 2"],
)
def test_cifar(place: str, ending: str, content: bytes, tmp_path: Path) -> None:
    write_cifar(tmp_path / place, ending, content)
    split = cifar10(tmp_path)
    assert split.train_x.shape == (20, 3, 32, 32)
    assert split.test_x.shape == (4, 3, 32, 32)
    assert split.train_y.tolist() == CLASSES * 5
    pixels = ROWS.reshape(4, 3, 32, 32).astype(np.float64)
    mean, deviation = pixels.mean((0, 2, 3), keepdims=True), pixels.std((0, 2, 3), keepdims=True)
    torch.testing.assert_close(
        split.test_x, torch.from_numpy((pixels - mean) / deviation).float(), atol=1e-5, rtol=0
    )  # float32 against float64


def test_the_real_pickle_reads_the_same() -> None:
    """The bytes of `of_python_2` are what Python takes for such a dict."""
    content = pickle.loads(of_python_2(ROWS, CLASSES), encoding="bytes")
    assert np.array_equal(content[b"data"], ROWS)
    assert content[b"labels"] == CLASSES


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "0 bytes are not whole records"),
        (records()[:-1], "12,291 bytes are not whole records of 3,073"),
        (b"\x0a" + records()[1:], "a label is 10, expected 0 to 9"),
    ],
)
def test_bad_binary(content: bytes, complaint: str, tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin", ".bin", content)
    with pytest.raises(PCGraphError, match=complaint) as caught:
        cifar10(tmp_path)
    assert "data_batch_1.bin" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a pickle"),
        (batch_of()[:-40], "not a pickle"),
        (b"not a pickle at all", "not a pickle"),
        (pickle.dumps([1, 2]), "holds a list, expected a dict"),
        (batch_of(array=ROWS[:, :100]), "`data` is not an array of bytes"),
        (batch_of(array=ROWS.astype(np.int64)), "something else than unsigned bytes"),
        (batch_of(array=ROWS.astype(object)), "something else than unsigned bytes"),
        (batch_of(labels=CLASSES[:-1]), "4 images but 3 labels"),
        (batch_of(labels=["a"] * 4), "`labels` is not a list"),
        (batch_of(labels=[12] * 4), "a label is 12"),
        (of_python_2(ROWS, CLASSES).replace(struct.pack("<i", 4) + b"J", struct.pack("<i", 10**9) + b"J", 1), "bytes"),
    ],
)
def test_bad_pickle(content: bytes, complaint: str, tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py", "", content)
    with pytest.raises(PCGraphError, match=complaint) as caught:
        cifar10(tmp_path)
    assert "data_batch_1" in str(caught.value)


class Calls:
    """Calls something as soon as it is unpickled."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("inside", [False, True])
def test_hostile_pickle_is_refused(inside: bool, protocol: int, tmp_path: Path) -> None:
    trace, path = tmp_path / "it ran", tmp_path / "batch"
    attack = Calls(os.system, f"touch '{trace}'")
    path.write_bytes(pickle.dumps({b"data": attack} if inside else attack, protocol=protocol))
    with pytest.raises(PCGraphError, match="was not loaded") as caught:
        read_pickle(path)
    assert str(path) in str(caught.value)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the control: it does run
    assert trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 10**12) + b".",  # bytes
        b"\x80\x05\x96" + struct.pack("<Q", 10**12) + b".",  # a bytearray
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",  # remembered far out
        b"\x80\x04cnumpy\nndarray\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R.",  # an array of no bytes
    ],
)
def test_pickles_that_promise_much(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(PCGraphError):
        read_pickle(path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (pickle.dumps({b"data": Calls(codecs.encode, "a", "rot13")}, 2), "another encoding"),
        (pickle.dumps({b"data": Calls(np.load, "a")}, 4), "asks for"),
        (pickle.dumps({b"data": Calls(getattr, "a", "b")}, 2), "asks for"),
        (b"\x80\x02cnumpy\ndtype\nU\x02u1\x81.", "NEWOBJ"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ],
)
def test_what_a_pickle_may_not_ask_for(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(PCGraphError, match=complaint):
        read_pickle(path)


def test_every_known_instruction_exists() -> None:
    from pcgraph.reproduce.pickles import _OPCODES

    assert {code.name for code in pickletools.opcodes} >= _OPCODES


def test_no_cifar(tmp_path: Path) -> None:
    with pytest.raises(NotRun, match=r"data not available: CIFAR-10 .*unpacked"):
        cifar10(tmp_path)


def test_a_batch_is_missing(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-bin", ".bin", records())
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(PCGraphError, match="there is no data_batch_4"):
        cifar10(tmp_path)


# -- pictures ------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for part, count in (("train", 3), ("val", 1)):
        for k, name in enumerate(("n01", "n02")):
            (tmp_path / "imagenet" / part / name).mkdir(parents=True)
            for j in range(count):
                size = (64 + j, 48) if k else (40, 90)
                image.new("RGB", size, (200 * k, 30 * j, 7)).save(
                    tmp_path / "imagenet" / part / name / f"{j}.JPEG", quality=95
                )
    return tmp_path


def test_image_folder(pictures: Path) -> None:
    split = image_folder(pictures, 16, Share(10, 2, 5))
    assert split.train_x.shape == (4, 3, 16, 16)
    assert split.test_x.shape == (2, 3, 16, 16)
    assert split.train_y.tolist() == [0, 1, 0, 1]
    assert split.test_y.tolist() == [0, 1]
    assert split.classes == 2
    red = split.train_x[:, 0].mean((1, 2))
    assert red[0] < 0 < red[1]


def test_a_picture_that_is_none(pictures: Path) -> None:
    path = pictures / "imagenet" / "train" / "n02" / "1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(PCGraphError, match="is not a picture") as caught:
        image_folder(pictures, 16, Share(10, 2, 5))
    assert str(path) in str(caught.value)


def test_a_picture_that_promises_much(pictures: Path) -> None:
    path = pictures / "imagenet" / "val" / "n02" / "0.JPEG"
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5  # height and width in the frame's header
    content[at : at + 4] = b"\xff\xdc\xff\xdc"
    path.write_bytes(bytes(content))
    with pytest.raises(PCGraphError, match="is not a picture"):
        image_folder(pictures, 16, Share(10, 2, 5))


def test_a_class_without_pictures(pictures: Path) -> None:
    (pictures / "imagenet" / "val" / "n02" / "0.JPEG").unlink()
    with pytest.raises(PCGraphError, match="has no pictures"):
        image_folder(pictures, 16, Share(10, 2, 5))


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(NotRun, match="data not available: ImageNet"):
        image_folder(tmp_path, 16, Share(10, 2, 5))


# -- training ------------------------------------------------------------------------------------


def small(channels: int, side: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(24, channels, side, side, generator=generator)
    y = torch.randint(10, (24,), generator=generator)
    return Split(x, y, x[:8], y[:8])


PLANS = [
    training.Plan("MLP", "FashionMNIST", 2, 0, batch=8, rate=0.05, looks=2),
    training.Plan("AlexNet", "FashionMNIST", 2, 0, width=0.1, batch=8, looks=2),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.net)
def test_training_is_equal_to_the_bit(plan: training.Plan) -> None:
    told: list[str] = []
    numbers = training.train(plan, small(1, 28), told.append)
    assert numbers["equal"] is True
    assert numbers["largest_weight_difference"] == 0.0
    assert numbers["curve_bp"] == numbers["curve_zil"]
    assert numbers["curve_steps"] == [3, 6]
    assert (numbers["images"], numbers["steps"], len(told)) == (24, 6, 2)


def test_few_images() -> None:
    numbers = training.train(replace(PLANS[0], looks=100), small(1, 28), lambda text: None)
    assert numbers["curve_steps"] == [1, 2, 3, 4, 5, 6]
    assert len(numbers["curve_bp"]) == len(numbers["curve_zil"]) == 6
    with pytest.raises(PCGraphError, match="fewer than one batch of 25"):
        training.train(replace(PLANS[0], batch=25), small(1, 28), lambda text: None)


def test_residual_training_with_buffers() -> None:
    plan = training.Plan("ResNet-18", "ImageNet", 1, 0, train=4, test=4, batch=2, looks=1)
    numbers = training.train(plan, replace(small(3, 8), classes=13), lambda text: None)
    assert numbers["equal"] is True


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.net)
def test_another_seed_is_found_out(plan: training.Plan) -> None:
    numbers = training.train(plan, small(1, 28), lambda text: None, z_il_seed=1)
    assert numbers["equal"] is False
    assert numbers["largest_weight_difference"] > 1e-3


def test_it_learns() -> None:
    plan = replace(PLANS[0], epochs=30)
    numbers = training.train(plan, small(1, 28), lambda text: None)
    assert numbers["accuracy_bp"] == 1.0


def test_cells_where_there_is_no_data(tmp_path: Path) -> None:
    cells = training.cells(Settings(data=tmp_path))
    assert len({cell.key for cell in cells}) == len({cell.name for cell in cells}) == 4
    assert not {cell.key for cell in cells} & {cell.key for cell in training.cells(Settings(full=True))}
    for cell in cells[2:]:
        with pytest.raises(NotRun, match="data not available"):
            cell.measure(lambda text: None)


def test_table_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    numbers = training.train(PLANS[0], small(1, 28), lambda text: None)
    found = [Found("", "training", "one", numbers), Found("", "training", "two", {}, not_run="data not available")]
    text = training.table(found)
    assert "| one | 2 | 24 |" in text
    assert "not run: data not available" in text
    assert training.draw(found, tmp_path) == ["training.png"]
    assert (tmp_path / "training.png").stat().st_size > 1000
    assert training.draw(found[1:], tmp_path) == []
