"""Which value nodes are held, and where: clamped to data, free to move, or masked element by element."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from ..errors import PCGraphError
from ..graph import PCGraph, Ref, Role


@dataclass(frozen=True)
class Clamps:
    """What the user says of value nodes, by vertex name (``"name.k"`` for output k of a vertex).

    Without a word inputs are clamped to what was given, hidden values are free, and outputs follow the loss.

    Attributes:
        clamp: value node -> the tensor that it is held at. A node outside of the inputs keeps its error node.
        free: nodes that move although they would be clamped; inputs: inference descends the energy in them as well.
        mask: node -> bool tensor that broadcasts to its value: held where True, free where False. Held elements are at
            the clamp's, or for inputs at the given, value.
    """

    clamp: Mapping[str, Tensor] = field(default_factory=dict)
    free: Collection[str] = ()
    mask: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.free, str):
            raise PCGraphError(f"free={self.free!r} is one string", hint=f"pass a list of names: free=[{self.free!r}]")
        both = sorted(set(self.free) & (set(self.clamp) | set(self.mask)))
        if both:
            raise PCGraphError(f"{both} are free and clamped", hint="mask says which elements of a node are held")

    def __bool__(self) -> bool:
        return bool(self.clamp or self.free or self.mask)

    @property
    def names(self) -> set[str]:
        """All nodes that are named."""
        return {*self.clamp, *self.free, *self.mask}


class Holds:
    """Clamps on the value nodes of one network.

    Args:
        graph: that is simulated.
        clamps: what the user said.
        values: value nodes there are -> their tensor at the first prediction.
        faced: outputs, which follow the loss.

    Attributes:
        at: value node that is held, wholly or in part -> the tensor that it is held at.
        where: value node that is held in part -> bool tensor.
        free_inputs: inputs of which at least a part moves.

    Raises:
        PCGraphError: a name is no value node, an output follows the loss, or shapes do not fit.
    """

    def __init__(self, graph: PCGraph, clamps: Clamps, values: Mapping[Ref, Tensor], faced: Collection[Ref]) -> None:
        inputs = {Ref(vertex.name) for vertex in graph.role(Role.INPUT)}
        for name in clamps.clamp:
            if Ref(name) in inputs:
                raise PCGraphError(
                    f"clamp of the input {name!r}", hint="pass the tensor as the input; mask frees a part of it"
                )
        refs = {name: _ref(graph, name, values) for name in sorted(clamps.names)}
        for name, ref in refs.items():
            if ref in faced:
                raise PCGraphError(
                    f"the output {name!r} follows the loss",
                    hint="leave the loss (and target) out to clamp or free outputs",
                )
        self.at: dict[Ref, Tensor] = {}
        self.where: dict[Ref, Tensor] = {}
        for name, tensor in clamps.clamp.items():
            self.at[refs[name]] = _fitting(name, "clamp", tensor, values[refs[name]]).to(values[refs[name]])
        for name, mask in clamps.mask.items():
            ref = refs[name]
            self.where[ref] = _fitting(name, "mask", mask, values[ref]).to(values[ref].device, torch.bool)
            self.at.setdefault(ref, values[ref])
        freed = {refs[name] for name in (*clamps.free, *clamps.mask)}
        self.free_inputs = tuple(ref for ref in inputs if ref in freed)

    def whole(self, ref: Ref) -> bool:
        """Whether no element of it moves."""
        return ref in self.at and ref not in self.where

    def held(self, ref: Ref, free: Tensor) -> Tensor:
        """`free` where the node moves, and what it is held at elsewhere."""
        if ref not in self.at:
            return free
        at = self.at[ref]
        return torch.where(self.where[ref], at, free) if ref in self.where else at

    def still(self, ref: Ref, tensor: Tensor) -> Tensor:
        """`tensor` where the node moves, 0 elsewhere."""
        if ref in self.where:
            return torch.where(self.where[ref], torch.zeros_like(tensor), tensor)
        return torch.zeros_like(tensor) if ref in self.at else tensor


def _ref(graph: PCGraph, name: str, values: Mapping[Ref, Tensor]) -> Ref:
    vertex, _, output = name.rpartition(".")
    ref = Ref(name) if name in graph.vertices or not output.isdigit() else Ref(vertex, int(output))
    if ref not in values or graph[ref.vertex].role in (Role.PARAMETER, Role.STATE):
        raise PCGraphError(f"{name!r} is no value node of the network", hint=_hint(name, values, graph))
    return ref


def _hint(name: str, values: Mapping[Ref, Tensor], graph: PCGraph) -> str:
    known = [ref.vertex for ref in values if graph[ref.vertex].role in (Role.INPUT, Role.OPERATION)]
    near = [other for other in dict.fromkeys(known) if fnmatchcase(other, f"*{name.rstrip('0123456789_')}*")]
    return "see print(pcn.graph) for the names" + (f"; there are {', '.join(near[:5])}" if near else "")


def _fitting(name: str, what: str, tensor: Tensor, value: Tensor) -> Tensor:
    try:
        return torch.as_tensor(tensor).detach().broadcast_to(value.shape)
    except RuntimeError:
        raise PCGraphError(
            f"the {what} of {name!r} has shape {list(tensor.shape)}, the value node {list(value.shape)}",
            hint="give one that broadcasts to the value node",
        ) from None
