"""The IDX format of MNIST-like data sets: a magic number, big-endian sizes, then the bytes.

Source: https://yann.lecun.com/exdb/mnist/ ("file formats for the MNIST database").
"""

from __future__ import annotations

import gzip
import struct
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import PCGraphError

_UNSIGNED_BYTE = 0x08


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Args:
        path: the file.
        dimensions: how many it must have: 3 for images [N, height, width], 1 for labels [N].

    Raises:
        PCGraphError: the file cannot be read, or is not exactly what its header must and does say.
    """
    data = _read(path)
    if len(data) < 4:
        raise _corrupt(path, f"{len(data)} bytes are no IDX header")
    zero, kind, found = struct.unpack(">HBB", data[:4])
    if zero != 0 or kind != _UNSIGNED_BYTE:
        raise _corrupt(path, f"magic number 0x{data[:4].hex()} is not that of unsigned bytes (0x000008..)")
    if found != dimensions:
        raise _corrupt(path, f"{found} dimensions, expected {dimensions}")
    start = 4 + 4 * dimensions
    if len(data) < start:
        raise _corrupt(path, "the header ends before its sizes do")
    sizes = struct.unpack(f">{dimensions}I", data[4:start])
    if 0 in sizes:
        raise _corrupt(path, f"a size of 0 in {sizes}")
    if len(data) - start != prod(sizes):
        raise _corrupt(path, f"sizes {sizes} promise {prod(sizes):,} bytes, the file holds {len(data) - start:,}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(sizes)


def _read(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise PCGraphError(f"{path} cannot be read: {error}", hint="install the data set again") from error


def _corrupt(path: Path, what: str) -> PCGraphError:
    return PCGraphError(f"{path} is not the IDX file it should be: {what}", hint="install the data set again")
