"""Signatures: everything about the arguments of a call that a program depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_leaves

from ..errors import CaptureError
from ..marks import marks

_PLAIN = (torch.Tensor, bool, int, float, str, type(None))  # nothing to flatten


class Signature:
    """Programs are filed by it: it compares by value, and its hash is computed once."""

    __slots__ = ("_hash", "_key")

    def __init__(self, key: tuple[Any, ...]) -> None:
        self._key, self._hash = key, hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._key == other._key


class Given(NamedTuple):
    """The arguments of a call, to somebody who looks for its program.

    Attributes:
        tensors: the different tensors among them.
        memories: which memory each of these lies in.
        signature: everything about the arguments that a program depends on.
    """

    tensors: list[torch.Tensor]
    memories: list[int]
    signature: Signature


def signature_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given:
    """What is given in a call.

    Raises:
        CaptureError: a nested tensor is among the arguments, which has neither shape nor strides.
    """
    try:
        return _signature(args, kwargs)
    except RuntimeError as error:
        if not any(isinstance(leaf, torch.Tensor) and leaf.is_nested for leaf in tree_leaves((args, dict(kwargs)))):
            raise
        raise CaptureError(
            "nested tensors are not supported", hint="give padded tensors and a mask, or call `pcn.module`"
        ) from error


def _signature(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given:
    if not kwargs and len(args) == 1 and isinstance(args[0], torch.Tensor):
        return Given([args[0]], memories_of(args), Signature(tensor_key(args[0])))
    leaves: list[Any] = [*args, *kwargs.values()]
    spec: Any = (len(args), tuple(kwargs))
    if not all([isinstance(leaf, _PLAIN) for leaf in leaves]):
        leaves, spec = tree_flatten((args, dict(kwargs)))
    tensors: list[torch.Tensor] = []
    index: dict[int, int] = {}
    key: list[Any] = [spec]
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            place = index.setdefault(id(leaf), len(tensors))
            if place == len(tensors):
                tensors.append(leaf)
            key.append((place, tensor_key(leaf)))
        else:
            key.append(_value_key(leaf))
    memories = memories_of(tensors)
    if len(tensors) > 1:
        key.append(_sharing(tensors, memories))
    return Given(tensors, memories, Signature(tuple(key)))


def memories_of(tensors: Sequence[torch.Tensor]) -> list[int]:
    """Identities of the memory that tensors lie in; a number of its own for each that has a layout without any."""
    try:
        return [tensor.untyped_storage()._cdata for tensor in tensors]
    except (NotImplementedError, RuntimeError):
        return [_memory(tensor, k) for k, tensor in enumerate(tensors)]


def _memory(tensor: torch.Tensor, k: int) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return -1 - k


def _sharing(tensors: Sequence[torch.Tensor], memories: Sequence[int]) -> tuple[int, ...]:
    """For every tensor, the first one in the same memory."""
    for tensor, memory in zip(tensors, memories, strict=True):
        if memory < 0 and tensor.layout is torch.strided:
            tensor.untyped_storage()  # says why it has none, so that nobody knows what it shares
    first: dict[int, int] = {}
    return tuple(first.setdefault(memory, k) for k, memory in enumerate(memories))


def _value_key(value: Any) -> Any:
    if isinstance(value, float | complex):
        return (type(value), repr(value))
    if isinstance(value, slice | range):  # equal ranges may differ in their ends
        return (type(value), *map(_value_key, (value.start, value.stop, value.step)))
    try:
        hash(value)
        return (type(value), value)
    except TypeError:
        return (type(value), id(value))


def tensor_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What a program depends on in an input tensor."""
    stride = tensor.stride() if tensor.layout is torch.strided else ()
    key: tuple[Any, ...] = (
        type(tensor),
        tensor.shape,
        stride,
        tensor.dtype,
        tensor.device,
        tensor.requires_grad,
        tensor.layout,
    )
    if tensor.requires_grad and not tensor.is_leaf:
        key += ("no leaf",)
    if tensor.is_complex() and tensor.is_conj():
        key += ("conjugate",)
    if tensor.is_neg():
        key += ("negative",)
    if tensor.__dict__:
        return (*key, *((name, *_value_key(value)) for name, value in marks(tensor).items()))
    return key
