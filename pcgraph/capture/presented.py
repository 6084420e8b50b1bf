"""What a run sees of the caller's tensors: the very objects where that leaves no trace, else stand-ins for them.

Identity is something that a model can ask for (``x is self.previous``), and so are ``x.grad`` and attributes. An object
whose history an in-place operation would change for good has a stand-in: the same memory on a tape of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..marks import marks
from .mutation import dense_copy


class Presented:
    """The different tensors among the arguments of a call, as the run sees them.

    Args:
        leaves: the leaves of the arguments.
        known: tells objects that the model holds: those it may recognise, and they are never replaced.

    Attributes:
        callers: the caller's tensors, each once.
        seen: for each of them the object that the run sees.
        references: how many references to each stand-in there are in here and in the arguments, by `id`.
    """

    def __init__(self, leaves: Sequence[Any], known: Callable[[Any], bool]) -> None:
        self.callers = list({id(leaf): leaf for leaf in leaves if isinstance(leaf, torch.Tensor)}.values())
        self.seen = [tensor if known(tensor) or _restorable(tensor) else _stand_in(tensor) for tensor in self.callers]
        self._place = {id(tensor): place for place, tensor in enumerate(self.callers)}
        self._attributes = [dict(marks(tensor)) for tensor in self.callers]
        self._clean = [tensor.grad_fn is None for tensor in self.seen]

    def of(self, leaf: Any) -> Any:
        """What the run sees in a leaf's place."""
        return self.seen[self._place[id(leaf)]] if isinstance(leaf, torch.Tensor) else leaf

    def stand_ins(self) -> list[torch.Tensor]:
        """Those that are not the caller's own objects."""
        return [seen for seen, own in zip(self.seen, self.callers, strict=True) if seen is not own]

    def lasting(self) -> list[torch.Tensor]:
        """The caller's own objects with a history that an in-place operation would change for good."""
        return [t for t, own in zip(self.seen, self.callers, strict=True) if t is own and not _restorable(t)]

    def restore(self) -> None:
        """Cut what a write with a gradient has hung on the caller's objects; the program will write it again."""
        for tensor, own, clean in zip(self.seen, self.callers, self._clean, strict=True):
            if tensor is own and clean and tensor.grad_fn is not None:
                tensor.detach_()

    def marked(self) -> bool:
        """Whether the run put attributes on an argument; the caller's objects have them then."""
        found = False
        for tensor, own, before in zip(self.seen, self.callers, self._attributes, strict=True):
            after = marks(tensor)
            if after.keys() != before.keys() or any(after[name] is not before[name] for name in before):
                found = True
                own.__dict__ = dict(vars(tensor))
        return found

    def hand_back(self, model: torch.nn.Module) -> None:
        """Where the model keeps a stand-in, let it have the caller's object."""
        own = {id(s): o for s, o in zip(self.seen, self.callers, strict=True) if s is not o}
        if own:
            for module in model.modules():
                _exchange(vars(module), own, 0)


def _restorable(tensor: torch.Tensor) -> bool:
    """Whether what an in-place operation does to a tensor's history can be undone."""
    return tensor.is_leaf and not tensor._is_view()


def _stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory on a tape of its own; a leaf if and only if the tensor is one."""
    alias = tensor.detach().requires_grad_(tensor.requires_grad)
    vars(alias).update(vars(tensor))  # what the user has put on it
    if tensor.is_leaf or tensor.layout is not torch.strided:
        return alias
    overlapping = any(s == 0 and n > 1 for s, n in zip(tensor.stride(), tensor.shape, strict=True))
    if not overlapping:
        alias = dense_copy(alias)
        vars(alias).update(vars(tensor))
    return alias


def _exchange(container: Any, own: dict[int, torch.Tensor], depth: int) -> None:
    pairs = list(container.items() if isinstance(container, dict) else enumerate(container))
    for key, value in pairs:
        if id(value) in own:
            container[key] = own[id(value)]
        elif type(value) is tuple and any(id(item) in own for item in value):
            container[key] = tuple(own.get(id(item), item) for item in value)
        elif isinstance(value, dict | list) and depth < _DEPTH:
            _exchange(value, own, depth + 1)


_DEPTH = 4  # of lists and dicts within each other on a module
