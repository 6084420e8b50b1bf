"""Signatures: everything about the arguments of a call that a program depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves

from ..errors import CaptureError
from ..marks import marks

_PLAIN = (torch.Tensor, bool, int, float, str, type(None))  # nothing to flatten


def signature_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[torch.Tensor], Any]:
    """The different tensors among the arguments, and everything about the arguments that a program depends on.

    Raises:
        CaptureError: a nested tensor is among them, which has neither shape nor strides.
    """
    try:
        return _signature(args, kwargs)
    except RuntimeError as error:
        if not any(isinstance(leaf, torch.Tensor) and leaf.is_nested for leaf in tree_leaves((args, dict(kwargs)))):
            raise
        raise CaptureError(
            "nested tensors are not supported", hint="give padded tensors and a mask, or call `pcn.module`"
        ) from error


def _signature(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[torch.Tensor], Any]:
    if not kwargs and len(args) == 1 and isinstance(args[0], torch.Tensor):
        return [args[0]], tensor_key(args[0])
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
    if len(tensors) > 1:
        key.append(_sharing(tensors))
    return tensors, tuple(key)


def _sharing(tensors: list[torch.Tensor]) -> tuple[int, ...]:
    """For every tensor, the first one in the same memory."""
    first: dict[int, int] = {}
    strided = [t.layout is torch.strided for t in tensors]
    memory = [
        t.untyped_storage()._cdata if s else -1 - k for k, (t, s) in enumerate(zip(tensors, strided, strict=True))
    ]
    return tuple(first.setdefault(m, k) for k, m in enumerate(memory))


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
