"""Words inside of torch's tensors that tell whether their metadata changed, read for thousands of tensors in one go.

A tensor is a Python object that points to a `TensorImpl` (sizes, strides, dtype, device, dispatch keys), which points
to an `AutogradMeta` (requires_grad, grad_fn). A guard of torch's looks at these in a hundred nanoseconds a tensor;
NumPy gathers the words in twenty. Where they lie is found by looking at samples, never assumed, and whether they tell
of every change is tried out before they are trusted: if anything is not as expected, there are no words, and callers
compare by slower means.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import words

_WORD = 8
_INLINE = 5  # torch keeps the sizes of tensors with more dimensions elsewhere
_IMPL, _META = 24, 20  # words that are looked at when searching; both structures are about that large
_SIZES, _STRIDES = (3, 7, 11, 13, 17), (1000003, 100019, 10007, 1009, 101)


@dataclass(frozen=True, slots=True)
class Layout:
    """Places of words, in bytes.

    Attributes:
        object: of the Python object: its class, and where its TensorImpl is.
        impl: of the TensorImpl, for every tensor: number of dimensions, dtype and device, dispatch keys, where its
            AutogradMeta is.
        meta: the last of these.
        sizes: of the TensorImpl, the size of the first dimension; the others follow.
        strides: likewise.
        autograd: of the AutogradMeta: requires_grad and grad_fn.
    """

    object: tuple[int, ...]
    impl: tuple[int, ...]
    meta: int
    sizes: int
    strides: int
    autograd: tuple[int, ...]

    def of(self, dimensions: int) -> tuple[int, ...]:
        """The places of a TensorImpl that matter for a tensor with so many dimensions."""
        inline = range(0, _WORD * dimensions, _WORD)
        return (*self.impl, *(self.sizes + k for k in inline), *(self.strides + k for k in inline))


class TensorWords:
    """The metadata of tensors, as it was when this was made or last accepted.

    Args:
        tensors: all of them such that `readable` is true.
        layout: where the words are.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], layout: Layout) -> None:
        self._tensors = tuple(tensors)  # a word may be read only while its owner lives
        self._layout = layout
        self.accept()

    def accept(self) -> None:
        """Take the metadata as it is now for what it should be."""
        layout, addresses = self._layout, [tensor._cdata for tensor in self._tensors]
        metas = [meta for meta in _values(address + layout.meta for address in addresses) if meta]
        levels = (
            [id(tensor) + place for tensor in self._tensors for place in layout.object],
            [
                address + place
                for tensor, address in zip(self._tensors, addresses, strict=True)
                for place in layout.of(tensor.dim())
            ],
            [meta + place for meta in metas for place in layout.autograd],
        )
        self._levels = tuple(_level(level) for level in levels)

    def unchanged(self) -> bool:
        """Whether no word has changed; if one has, the metadata may still be the same."""
        memory, ((objects, one), (impls, two), (metas, three)) = words.MEMORY, self._levels
        # Each level says where the next one is: it must be as it was before that one may be read.
        return bool(
            memory[objects].tobytes() == one and memory[impls].tobytes() == two and memory[metas].tobytes() == three
        )


def _level(addresses: Iterable[int]) -> tuple[Any, bytes]:
    """Where words are, and what they are now."""
    indices = words.indices(addresses)
    return indices, words.MEMORY[indices].tobytes()


def readable(tensor: torch.Tensor) -> bool:
    """Whether words tell everything about a tensor, where there are words."""
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.dim() <= _INLINE
    )


def _find() -> Layout | None:
    place_of_type = words.PLACES.get("type")
    samples = [_new(2), _new(3)]
    place_of_impl = words.place((tensor, tensor._cdata) for tensor in samples)
    if place_of_type is None or place_of_impl is None:
        return None
    by_kind = [_new(2), torch.empty(2, device="meta"), _new(2, dtype=torch.complex64)]
    keys = _only({k for k in range(_IMPL) if all(_impl(t)[k] == _keys(t) for t in by_kind)})
    ranks = [torch.empty((7 + rank,) * rank, device="meta") for rank in range(_INLINE + 1)]
    rank = _only({k for k in range(_IMPL) if all(_impl(t)[k] == t.dim() for t in ranks)})
    kind = _only(_moved(_new(2), _new(2, dtype=torch.float64)) - _moved(_new(2), _new(2)))
    large = _impl(torch.empty_strided(_SIZES, _STRIDES, device="meta"))
    sizes, strides = (_run(large, numbers) for numbers in (_SIZES, _STRIDES))
    owner = _new(2)
    plain, graded = _impl(owner), _impl(owner.requires_grad_())
    meta = _only({k for k in range(_IMPL) if not plain[k] and graded[k] > 1 << 12} & set(range(strides)))
    on = _meta(owner, meta)
    off = _meta(owner.requires_grad_(False), meta)
    written = _meta(owner.mul_(_new(2).requires_grad_()), meta)
    requires_grad, grad_fn = _only(_differ(on, off)), _differ(off, written)
    if not grad_fn:
        return None
    return Layout(
        (place_of_type, place_of_impl),
        tuple(_WORD * k for k in (rank, kind, keys, meta)),
        _WORD * meta,
        _WORD * sizes,
        _WORD * strides,
        tuple(_WORD * k for k in sorted({requires_grad, *grad_fn})),
    )


_new = functools.partial(torch.empty, device="cpu", dtype=torch.float32)  # whatever the defaults are


def _impl(tensor: torch.Tensor) -> list[int]:
    return _values(range(tensor._cdata, tensor._cdata + _WORD * _IMPL, _WORD))


def _meta(tensor: torch.Tensor, place: int) -> list[int]:
    address = _impl(tensor)[place]
    return _values(range(address, address + _WORD * _META, _WORD))


def _keys(tensor: torch.Tensor) -> int:
    return int(torch._C._dispatch_keys(tensor).raw_repr())


def _values(addresses: Iterable[int]) -> list[int]:
    return [ctypes.c_uint64.from_address(address).value for address in addresses]


def _differ(one: list[int], other: list[int]) -> set[int]:
    return {k for k, (a, b) in enumerate(zip(one, other, strict=True)) if a != b}


def _moved(*contents: torch.Tensor) -> set[int]:
    """Words of one TensorImpl that differ as it takes on one tensor's contents and then another's."""
    taker, seen = _new(2), []
    for content in contents:
        taker.data = content
        seen.append(_impl(taker))
    return _differ(*seen)


def _only(places: set[int]) -> int:
    if len(places) != 1:
        raise LookupError(f"{len(places)} places in question")
    return places.pop()


def _run(values: list[int], numbers: Sequence[int]) -> int:
    """Where these numbers follow one another."""
    length = len(numbers)
    return _only({k for k in range(len(values) - length + 1) if values[k : k + length] == list(numbers)})


# -- every way in which a tensor's metadata can change in place, tried before the words are trusted --------------
def _becomes_parameter(tensor: torch.Tensor) -> None:
    tensor.__class__ = torch.nn.Parameter


def _gets_history(tensor: torch.Tensor) -> None:
    tensor.mul_(_new(1).requires_grad_())


def _set(make: Callable[[], torch.Tensor]) -> Callable[[torch.Tensor], None]:
    return lambda tensor: setattr(tensor, "data", make())


_CHANGES: tuple[Callable[[torch.Tensor], object], ...] = (
    lambda tensor: tensor.requires_grad_(),
    lambda tensor: tensor.requires_grad_().requires_grad_(False).requires_grad_(),
    lambda tensor: tensor.resize_(3, 4),
    lambda tensor: tensor.t_(),
    lambda tensor: tensor.unsqueeze_(0),
    lambda tensor: torch.utils.swap_tensors(tensor, _new(3, 2)),
    _becomes_parameter,
    _gets_history,
    *(
        _set(make)
        for make in (
            lambda: _new(4, 2),
            lambda: _new(3, 5),
            lambda: _new(6),
            lambda: _new(3, 2, 1, 1, 1, 1),
            lambda: _new(2, 3).t(),
            lambda: _new(3, 2, dtype=torch.float64),
        )
    ),
)


def _told(change: Callable[[torch.Tensor], object], where: Layout) -> bool:
    """Whether a change to one of two tensors is seen, and nothing before it."""
    one, other = _new(3, 2), _new(3, 2)
    seen = TensorWords([one, other], where)
    if not np.all([seen.unchanged(), seen.unchanged()]):
        return False
    change(other)
    return not seen.unchanged()


def _search() -> Layout | None:
    try:
        with torch.inference_mode(False), torch.enable_grad():
            found = _find()
            return found if found is not None and all(_told(change, found) for change in _CHANGES) else None
    except (RuntimeError, TypeError, AttributeError, LookupError):  # a torch that is made otherwise
        return None


LAYOUT = _search()  # None unless all was found and tells of every change that was tried
