"""What a capture gives: a torch.fx graph, where its tensors come from, and under which conditions it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.utils._pytree import TreeSpec

from .externals import External
from .guards import Guards


@dataclass(frozen=True)
class OutputSpec:
    """How to rebuild the model's return value from output tensors.

    Attributes:
        tree: pytree structure of the return value.
        leaves: per leaf, either the index of an output tensor or a constant, as ``(index, None)`` / ``(None, value)``.
    """

    tree: TreeSpec
    leaves: tuple[tuple[int | None, Any], ...]


@dataclass(frozen=True)
class Captured:
    """A model, captured at one call.

    Attributes:
        name: class name of the model.
        graph: torch-level calls in single assignment form. Every node carries ``specs``, ``multi``,
            ``module_path`` and ``source`` in its meta.
        externals: inputs, parameters and state by node name, in order of admission.
        outputs: how to rebuild the return value.
        guards: the conditions under which the graph may be used again.
        stale: autograd's complaint about a value that is written after learning has come to need it, or None.
        once: why the graph may be valid for this call only; empty if the guards cover everything.
    """

    name: str
    graph: fx.Graph
    externals: Mapping[str, External]
    outputs: OutputSpec
    guards: Guards
    once: tuple[str, ...]
    stale: str | None = None

    def graph_module(self) -> fx.GraphModule:
        """An executable `torch.fx.GraphModule` of the graph (inputs in the order of its placeholders)."""
        root = {e.path: e.tensor for e in self.externals.values() if e.tensor is not None}
        return fx.GraphModule(_nested(root), self.graph)


def _nested(tensors: Mapping[str, Any]) -> Any:
    import torch

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
