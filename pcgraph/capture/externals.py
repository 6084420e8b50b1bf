"""Tensors that exist before the run: inputs, parameters, state. Named for the graph, put back after the run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import fx

from ..errors import CaptureError
from ..graph.vertex import Role, TensorSpec
from .casts import sequence_number
from .observer import storage_key
from .presented import Presented
from .sources import user_source


class Named(NamedTuple):
    """How a tensor that the model owns is called."""

    path: str
    role: Role


@dataclass(slots=True)
class External:
    """One tensor from outside that the graph reads.

    Attributes:
        node: name of its fx node.
        role: input, parameter or state.
        tensor: the tensor object itself; for an input, None.
        input_index: position among the call's tensor inputs, or None.
        path: qualified name, or a description.
    """

    node: str
    role: Role
    tensor: torch.Tensor | None
    input_index: int | None
    path: str


class Externals:
    """Admits tensors from outside into the graph and restores what the run changed in them.

    Args:
        names: parameters, buffers and tensor attributes of the model, by `id`.
        input_names: names of the call's tensor inputs.
        presented: what the run sees of the inputs.

    Attributes:
        callers: the call's tensor inputs themselves.
        admitted: what the graph reads, by node.
        objects: the ids of these; the recorder keeps them alive.
        unnamed: tensors without a name, and where they were read.
    """

    def __init__(self, names: dict[int, Named], input_names: list[str], presented: Presented) -> None:
        self._names = names
        self._inputs = {id(tensor): (index, input_names[index]) for index, tensor in enumerate(presented.seen)}
        self.callers = presented.callers
        self._memories = Counter(map(storage_key, presented.callers))
        self._stand_ins = {id(tensor) for tensor in presented.stand_ins()}
        self._lasting = {storage_key(tensor) for tensor in presented.lasting()}
        self.admitted: dict[str, External] = {}
        self.objects: set[int] = set()
        self.unnamed: list[tuple[torch.Tensor, str]] = []
        self._watched: dict[int, torch.UntypedStorage] = {}
        self._saved: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._generators: dict[int, tuple[torch.Generator, torch.Tensor]] = {}
        self._last: fx.Node | None = None
        self._first_sequence = sequence_number()

    def admit(self, tensor: torch.Tensor, graph: fx.Graph, where: str) -> fx.Node:
        """Make the fx node (placeholder or get_attr) of an outside tensor.

        Raises:
            CaptureError: the tensor was made during the run by something that cannot be seen.
        """
        index, name = self._inputs.get(id(tensor), (None, ""))
        if index is not None:
            role, path, held = Role.INPUT, name, None
        else:
            named = self._names.get(id(tensor))
            held = tensor
            if named is not None:
                path, role = named.path, Role.PARAMETER if tensor.requires_grad else named.role
            else:
                path, role = self._unknown(tensor, where)
        node = self._insert(graph, path, role)
        node.meta["specs"] = (TensorSpec.of(tensor),)
        node.meta["multi"] = False
        node.meta["role"] = role
        node.meta["module_path"] = path
        self.objects.add(id(tensor))
        self.admitted[node.name] = External(node.name, role, held, index, path)
        key = storage_key(tensor)
        if key is not None:
            self._watched.setdefault(key, tensor.untyped_storage())
        return node

    def memories(self) -> dict[int, torch.UntypedStorage]:
        """The memories that the graph reads, by key."""
        return self._watched

    def input_index(self, tensor: torch.Tensor) -> int | None:
        """Which of the call's tensor inputs a tensor stands for."""
        return self._inputs.get(id(tensor), (None, ""))[0]

    def is_own(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor object is an input or hangs on the model, whatever memory it shares with others."""
        return id(tensor) in self._inputs or id(tensor) in self._names

    def shared(self, tensor: torch.Tensor) -> bool:
        """Whether several inputs lie in the memory of a tensor."""
        return self._memories[storage_key(tensor)] > 1

    def is_itself(self, external: External, tensor: torch.Tensor) -> bool:
        """Whether the run sees an outside tensor itself, no stand-in for an input."""
        return external.input_index is None or id(tensor) not in self._stand_ins

    def _unknown(self, tensor: torch.Tensor, where: str) -> tuple[str, Role]:
        if tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() >= self._first_sequence:
            raise CaptureError(
                "a tensor with a gradient appeared that no recorded operation made "
                f"(its gradient function is {tensor.grad_fn.name()})",
                where=where,
                hint="use torch operations, or a torch.autograd.Function, to compute it",
            )
        path = f"constant_{len(self.unnamed)}"
        self.unnamed.append((tensor, where))
        return path, Role.PARAMETER if tensor.requires_grad else Role.STATE

    def _insert(self, graph: fx.Graph, path: str, role: Role) -> fx.Node:
        with graph.inserting_after(self._last):  # None: at the beginning
            if role is Role.INPUT:
                node = graph.placeholder(path)
            else:
                node = graph.create_node("get_attr", path, (), {}, name=path.replace(".", "_"))
        self._last = node
        return node

    def before_write(self, key: int) -> None:
        """Keep a copy of outside memory that is about to be written.

        Raises:
            CaptureError: the write could not be undone.
        """
        if key in self._lasting and torch.is_grad_enabled():
            raise CaptureError(
                "the model writes in place to an argument that it also keeps, and that has a history of its own",
                where=str(user_source()),
                hint="clone() it before writing",
            )
        storage = self._watched.get(key)
        if storage is not None and key not in self._saved:
            self._saved[key] = (storage, storage.clone())

    def before_reshaping(self, tensor: torch.Tensor) -> None:
        """Refuse to give an outside tensor another shape: only the captured call would do it.

        Raises:
            CaptureError: the tensor existed before the run.
        """
        if id(tensor) in self.objects or id(tensor) in self._inputs or id(tensor) in self._names:
            raise CaptureError(
                "the model changes the shape of an argument, a parameter or a buffer in place",
                where=str(user_source()),
                hint="use the operation that returns a new tensor: x.unsqueeze(0) for x.unsqueeze_(0)",
            )

    def restore(self) -> None:
        """Put back everything that the run wrote into memory from outside (version counters stay as they are)."""
        for storage, copy in self._saved.values():
            storage.copy_(copy)
        for generator, state in self._generators.values():
            generator.set_state(state)
        self._saved.clear()
        self._generators.clear()

    def keep_generator(self, generator: torch.Generator) -> None:
        """Remember the state of a random number generator that is about to be used."""
        self._generators.setdefault(id(generator), (generator, generator.get_state()))


def names_of(model: torch.nn.Module) -> dict[int, Named]:
    """Names of all tensors that hang on the model: parameters, buffers, plain tensor attributes."""
    names: dict[int, Named] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        dot = prefix + "." if prefix else ""
        tables = (module._parameters, module._buffers, module.__dict__)
        for table in tables:
            for key, tensor in table.items():
                if isinstance(tensor, torch.Tensor) and id(tensor) not in names:
                    role = Role.PARAMETER if tensor.requires_grad else Role.STATE
                    names[id(tensor)] = Named(dot + key, role)
    return names
