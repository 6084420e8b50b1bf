"""Which graph value a tensor object holds right now, followed through views and in-place writes.

Memory can be seen through many tensor objects. Per storage one *base* value is current; a write makes a new
base, and older views are re-read from it when they are next used. Tensor objects are kept alive while
capturing, so that an `id` names one tensor only.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import fx

from ..graph.vertex import TensorSpec
from .mutation import Geometry, View
from .observer import storage_key


class Value(NamedTuple):
    """One output of one fx node; `output` is None when the node yields a single tensor."""

    node: fx.Node
    output: int | None


@dataclass(slots=True)
class _Binding:
    value: Value
    tensor: torch.Tensor  # keeps the object, and so its id, alive
    storage: int | None
    epoch: int


@dataclass(slots=True)
class Memory:
    """One storage: its current base value, where that lies, and how often it was written."""

    base: Value
    geometry: Geometry
    tensor: torch.Tensor  # the object through which it was first seen
    spec: TensorSpec
    epoch: int = 0


class Values:
    """The table from tensor objects to values of an fx graph under construction."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self._bound: dict[int, _Binding] = {}
        self._seeing: dict[int, list[torch.Tensor]] = {}  # tensor objects by storage
        self._memory: dict[int, Memory] = {}
        self._items: dict[tuple[fx.Node, int], fx.Node] = {}
        self._last_item: dict[fx.Node, fx.Node] = {}

    def bind(self, tensor: torch.Tensor, value: Value) -> None:
        """`tensor` holds `value` from now on."""
        key = storage_key(tensor) if tensor.layout is torch.strided else None
        epoch = 0
        if key is not None:
            memory = self._memory.get(key)
            if memory is None:
                self._memory[key] = Memory(value, Geometry.of(tensor), tensor, TensorSpec.of(tensor))
            else:
                epoch = memory.epoch
            self._seeing.setdefault(key, []).append(tensor)
        self._bound[id(tensor)] = _Binding(value, tensor, key, epoch)

    def admit(self, tensor: torch.Tensor, value: Value) -> None:
        """`tensor`, from outside, holds what it held before the run."""
        self.bind(tensor, value)
        self._bound[id(tensor)].epoch = 0

    def written(self, tensor: torch.Tensor) -> bool:
        """Whether a write to a tensor's memory was recorded."""
        key = storage_key(tensor) if tensor.layout is torch.strided else None
        return key in self._memory and self._memory[key].epoch > 0

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor object was seen before."""
        return id(tensor) in self._bound

    def seeing(self, key: int) -> list[torch.Tensor]:
        """The tensor objects that lie in a memory."""
        return self._seeing.get(key, [])

    def bound(self, tensor: torch.Tensor) -> Value:
        """The value that a tensor object was last seen to hold."""
        return self._bound[id(tensor)].value

    def users(self, tensor: torch.Tensor) -> list[fx.Node]:
        """What uses that value."""
        value = self.bound(tensor)
        item = value.node if value.output is None else self._items.get((value.node, value.output))
        return list(item.users) if item is not None else []

    def twin(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """A known object of the very value that an unknown object shows: same memory, same place, not written since.

        Autograd makes such objects of what it has saved. One with the same gradient function comes first. A leaf that
        learns is no such object: two in one memory (weights tied by ``.data``) have a gradient each.
        """
        if tensor.requires_grad and tensor.is_leaf:
            return None
        key = storage_key(tensor) if tensor.layout is torch.strided else None
        found = None
        for known in reversed(self._seeing.get(key, ()) if key is not None else ()):
            if known is not tensor and known.dtype == tensor.dtype and Geometry.of(known) == Geometry.of(tensor):
                if known.grad_fn is tensor.grad_fn and known.requires_grad == tensor.requires_grad:
                    return known
                if not tensor.requires_grad:
                    found = known
        return found

    def alias(self, tensor: torch.Tensor, known: torch.Tensor) -> None:
        """`tensor` shows what `known` shows."""
        binding = self._bound[id(known)]
        self._bound[id(tensor)] = _Binding(binding.value, tensor, binding.storage, binding.epoch)

    def current(self, tensor: torch.Tensor) -> tuple[Value, bool]:
        """The value that `tensor` holds now, and whether it had to be re-read from newer memory.

        The caller completes the metadata of a re-read node.
        """
        binding = self._bound[id(tensor)]
        if binding.storage is None:
            return binding.value, False
        memory = self._memory[binding.storage]
        if binding.epoch == memory.epoch:
            return binding.value, False
        here, base = Geometry.of(tensor), memory.geometry
        if here == base and tensor.requires_grad == memory.spec.requires_grad:  # a detached alias stays detached
            binding.value, binding.epoch = memory.base, memory.epoch
            return memory.base, False
        view = View(here.size, here.stride, here.offset - base.offset)
        node = self.graph.call_function(view, (self.node(memory.base),))
        binding.value, binding.epoch = Value(node, None), memory.epoch
        return binding.value, True

    def memory_of(self, tensor: torch.Tensor) -> Memory:
        """The memory behind a tensor object."""
        key = self._bound[id(tensor)].storage
        assert key is not None
        return self._memory[key]

    def write(self, tensor: torch.Tensor, value: Value, spec: TensorSpec) -> None:
        """The memory behind `tensor` was written; `value` is its new base, of this spec."""
        memory = self.memory_of(tensor)
        memory.base, memory.spec = value, spec
        memory.epoch += 1

    def tensors(self) -> Iterator[tuple[torch.Tensor, Value, int]]:
        """Every tensor object seen, its value, and how many references this table holds to it."""
        held = Counter(id(memory.tensor) for memory in self._memory.values())
        held.update(id(tensor) for tensors in self._seeing.values() for tensor in tensors)
        for key, binding in self._bound.items():
            yield binding.tensor, binding.value, 1 + held[key]

    def clear(self) -> None:
        """Let go of every tensor object and node."""
        self._bound.clear()
        self._items.clear()
        self._last_item.clear()
        self._seeing.clear()
        self._memory.clear()

    def rebind(self, tensor: torch.Tensor, value: Value) -> None:
        """`tensor` holds another value in the same memory: it was re-shaped in place, or cut off from its history."""
        binding = self._bound[id(tensor)]
        binding.value = value
        if binding.storage is not None:
            binding.epoch = self._memory[binding.storage].epoch

    def node(self, value: Value) -> fx.Node:
        """The fx node that stands for a value (an item of a tuple becomes a ``getitem`` node)."""
        if value.output is None:
            return value.node
        key = (value.node, value.output)
        item = self._items.get(key)
        if item is None:
            with self.graph.inserting_after(self._last_item.get(value.node, value.node)):
                item = self.graph.call_function(operator.getitem, (value.node, value.output))
            item.meta["item"] = True
            self._items[key] = self._last_item[value.node] = item
        return item
