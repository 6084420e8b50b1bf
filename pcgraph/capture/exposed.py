"""Memory that a run has handed to others than torch (``tensor.numpy()``): they may write to it, and nobody is told."""

from __future__ import annotations

import ctypes
from collections.abc import Collection

import torch

from ..errors import CaptureError
from .observer import storage_key

HANDS_OUT = frozenset({"numpy", "__array__", "untyped_storage", "storage"})


class Exposed:
    """The contents of such memory as torch knows them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.UntypedStorage, bytes | None]] = {}  # None: somebody else has written to it

    def add(self, tensor: torch.Tensor) -> None:
        """A tensor's memory was handed out."""
        key = storage_key(tensor)
        if key is not None and key not in self._known and tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            self._known[key] = storage, _contents(storage)

    def written(self, keys: Collection[int]) -> None:
        """Torch itself wrote to these memories."""
        for key in self._known.keys() & set(keys):
            storage, _ = self._known[key]
            self._known[key] = storage, _contents(storage)

    def check(self, keys: Collection[int | None], where: str) -> None:
        """Before memories are read.

        Raises:
            CaptureError: somebody else has written to one of them.
        """
        for key in self._known.keys() & set(keys):
            storage, known = self._known[key]
            if known is None or _contents(storage) != known:
                raise refused(where)

    def close(self) -> None:
        """The run is over, and memory from outside about to be put back: what others have written is known now."""
        held = self._known.items()
        self._known = {key: (storage, None) for key, (storage, known) in held if _contents(storage) != known}

    def __bool__(self) -> bool:
        return bool(self._known)


def refused(where: str) -> CaptureError:
    """What is to be said of such a write."""
    return CaptureError(
        "the model writes to a tensor's memory through NumPy or its storage, which no program repeats",
        where=where,
        hint="write to a copy (tensor.numpy().copy()), or use operations of torch",
    )


def _contents(storage: torch.UntypedStorage) -> bytes:
    return ctypes.string_at(storage.data_ptr(), storage.nbytes()) if storage.nbytes() else b""
