"""Arguments like those of an earlier call have its signature, which takes much longer to make than to tell.

Most calls of a network are given tensors of the same shapes as the call before. Torch has a guard in C++ that compares
everything that `tensor_key` looks at, of all tensors in one go; what it does not compare is asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .signature import Given, Signature, memories_of, signature_of

_TENSORS = (torch.Tensor, torch.nn.Parameter)
_VALUES = (bool, int, str, type(None))  # equal ones of one of these types are worth the same
_KEPT = 64  # signatures

_guards: Any = getattr(getattr(torch._C, "_dynamo", None), "guards", None)


class Recent:
    """Arguments that had a signature.

    Args:
        args, kwargs: such that `tellable` is true of them.
        given: what they are.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: Given) -> None:
        self._positional, self._names, self._signature = len(args), tuple(kwargs), given.signature
        leaves = (*args, *kwargs.values())
        self._places = [k for k, leaf in enumerate(leaves) if type(leaf) in _TENSORS]
        self._values = [(k, leaf) for k, leaf in enumerate(leaves) if type(leaf) not in _TENSORS]
        self._learning = [k for k, tensor in enumerate(given.tensors) if tensor.requires_grad]
        self._check = _guards.TensorGuards(*given.tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check

    def again(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given | None:
        """What is given, if it surely has the same signature."""
        if len(args) != self._positional or tuple(kwargs) != self._names:
            return None
        tensors = [*args, *kwargs.values()]
        if self._values:
            for k, value in self._values:
                if type(tensors[k]) is not type(value) or tensors[k] != value:
                    return None
            tensors = [tensors[k] for k in self._places]
        # Where gradients are off, a guard of torch's may take requires_grad for false.
        if not (torch.is_grad_enabled() and self._check(*tensors)):
            return None
        for tensor in tensors:
            if tensor.__dict__ or tensor.is_neg():
                return None
        for k in self._learning:
            if not tensors[k].is_leaf:
                return None
        memories = memories_of(tensors)
        if len(tensors) > 1 and len(set(memories)) != len(tensors):
            return None
        return Given(tensors, memories, self._signature)


def tellable(args: tuple[Any, ...], kwargs: Mapping[str, Any], given: Given) -> bool:
    """Whether `Recent` can tell such arguments: plain tensors, each in memory of its own, and values."""
    leaves = (*args, *kwargs.values())
    return (
        _guards is not None
        and torch.is_grad_enabled()
        and 0 < len(given.tensors) == len(set(given.memories)) == sum(type(leaf) in _TENSORS for leaf in leaves)
        and all(type(leaf) in _TENSORS or type(leaf) in _VALUES for leaf in leaves)
        and all(map(_plain, given.tensors))
    )


def _plain(tensor: torch.Tensor) -> bool:
    strided = tensor.layout is torch.strided and not tensor.is_nested
    return strided and tensor.is_leaf and not (tensor.is_complex() or tensor.is_neg() or tensor.__dict__)


class Signatures:
    """The signatures of a network's calls."""

    def __init__(self) -> None:
        self._latest: Recent | None = None
        self._known: dict[Signature, Recent] = {}

    def of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Given:
        """What `signature_of` says."""
        latest = self._latest  # another thread may call as well
        given = latest.again(args, kwargs) if latest is not None else None
        if given is None:
            given = signature_of(args, kwargs)
            self._latest = self._recent(args, kwargs, given, latest) if tellable(args, kwargs, given) else None
        return given

    def _recent(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], given: Given, refused: Recent | None) -> Recent:
        """For the next call. One that did not tell these arguments, which it should have, was made in other modes."""
        known = self._known.get(given.signature)
        if known is None or known is refused:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[given.signature] = Recent(args, kwargs, given)
        return known
