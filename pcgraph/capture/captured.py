"""What a capture gives: a torch.fx graph, where its tensors come from, and under which conditions it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import TreeSpec, tree_unflatten

from .externals import External
from .guards import Guards
from .opened import Opened, closed


@dataclass(frozen=True)
class OutputSpec:
    """How to rebuild the model's return value from output tensors.

    Attributes:
        tree: pytree structure of the return value.
        leaves: per leaf, either the index of an output tensor or a constant, as ``(index, None)`` / ``(None, value)``.
        attributes: what the model has put on its output tensors, by their index.
    """

    tree: TreeSpec
    leaves: tuple[tuple[int | None, Any], ...]
    attributes: Mapping[int, Mapping[str, Any]]

    @cached_property
    def rebuild(self) -> Callable[[Sequence[Any]], Any]:
        """Output tensors -> return value, made anew."""
        if self.tree.is_leaf() and self.leaves[0][0] is not None and not self.attributes:
            return lambda outputs: outputs[0]
        finish = closed if _opens(self.tree) else (lambda value: value)

        def rebuild(outputs: Sequence[Any]) -> Any:
            for index, attributes in self.attributes.items():
                vars(outputs[index]).update(attributes)
            leaves = [constant if index is None else outputs[index] for index, constant in self.leaves]
            return finish(tree_unflatten(leaves, self.tree))

        return rebuild


def _opens(tree: TreeSpec) -> bool:
    return tree.type is Opened or any(map(_opens, tree.children()))


@dataclass(frozen=True)
class Kept:
    """A tensor that the caller holds after the run besides the return value, or that it has put hooks on.

    Attributes:
        tensor: the object, on the run's own autograd graph.
        output: index of the output tensor that has its value, or None if it stands for an input.
        input_index: which input that is.
        retain: ``retain_grad()`` was called on it.
        where: the line that made it.
    """

    tensor: torch.Tensor
    output: int | None
    input_index: int | None
    retain: bool
    where: str


@dataclass(frozen=True)
class Captured:
    """A model, captured at one call.

    Attributes:
        name: class name of the model.
        graph: torch-level calls in single assignment form. Every node carries ``specs``, ``multi``,
            ``module_path`` and ``source`` in its meta.
        externals: inputs, parameters and state by node name, in order of admission.
        outputs: how to rebuild the return value.
        kept: tensors that the caller holds besides what the model returned, in the order of their making.
        changed: outside tensors that the run turned into values with a gradient, in place: by node, the index of the
            output tensor that they become.
        guards: the conditions under which the graph may be used again.
        stale: autograd's complaint about a value that is written after learning has come to need it, or None.
        woken: inputs that the model makes require a gradient.
        aten: ATen calls were recorded instead of torch's.
        holds_any: whether one of several tensors, in these memories, is the model's or lies in its memory: a graph is
            right for arguments that do not.
        once: why the graph may be valid for this call only; empty if the guards cover everything.
    """

    name: str
    graph: fx.Graph
    externals: Mapping[str, External]
    outputs: OutputSpec
    kept: tuple[Kept, ...]
    changed: Mapping[str, int]
    guards: Guards
    once: tuple[str, ...]
    stale: str | None = None
    woken: tuple[int, ...] = ()
    aten: bool = False
    holds_any: Callable[[Sequence[torch.Tensor], Iterable[int | None]], bool] = lambda tensors, memories: False

    def release(self) -> None:
        """Let go of the graph: its nodes hold each other, so that they would stay until the garbage collector comes."""
        for node in list(reversed(self.graph.nodes)):
            node.meta.clear()
            self.graph.erase_node(node)
        self.graph._graph_namespace._obj_to_name.clear()  # of nodes that are erased as well

    def graph_module(self) -> fx.GraphModule:
        """An executable `torch.fx.GraphModule` of the graph (inputs in the order of its placeholders)."""
        root = {e.path: e.tensor for e in self.externals.values() if e.tensor is not None}
        return fx.GraphModule(_nested(root), self.graph)


def _nested(tensors: Mapping[str, Any]) -> Any:
    root = torch.nn.Module()
    for path, tensor in tensors.items():
        *parents, leaf = path.split(".")
        module = root
        for parent in parents:
            if parent not in module._modules:
                module.add_module(parent, torch.nn.Module())
            module = module._modules[parent]  # type: ignore[assignment]
        if isinstance(tensor, torch.nn.Parameter):
            module.register_parameter(leaf, tensor)
        else:
            setattr(module, leaf, tensor)
    return root
