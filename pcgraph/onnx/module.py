"""What an import returns: a `torch.fx.GraphModule` that knows where its parameters come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from .leaves import Origin

_KEY = "onnx"


@dataclass(frozen=True)
class Input:
    """An input of the file.

    Attributes:
        name: its ONNX name.
        dtype: its type.
        shape: its sizes, None where they are open; None altogether if the file does not tell.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Provenance:
    """Where a module comes from.

    Attributes:
        file: the file, or what stands for it.
        source: the path, or the model itself if it has none.
        inputs: the file's inputs in the order of forward's arguments.
        outputs: names of its outputs.
        origins: of every parameter and buffer, by its name in the module.
        converted: whether the file's opset was converted before the import.
    """

    file: str
    source: Any
    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=dict)
    converted: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Provenance:
        return self  # nothing in it changes

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the path may point elsewhere later, a model is written as bytes."""
        source = self.source
        return {**self.__dict__, "source": source if isinstance(source, Path | bytes) else source.SerializeToString()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class OnnxModule(fx.GraphModule):
    """A module imported from an ONNX file: trainable, and its ``.code`` reads like the file."""

    @property
    def provenance(self) -> Provenance:
        """Where it comes from."""
        known: Provenance = self.meta[_KEY]
        return known

    @provenance.setter
    def provenance(self, value: Provenance) -> None:
        self.meta[_KEY] = value

    def __reduce__(self) -> tuple[Any, ...]:
        """The graph is written row by row, since torch would trace the generated code again, through the operators."""
        state = {key: value for key, value in self.__dict__.items() if key != "_graph"}
        return _rebuilt, (state, _rows(self.graph))


def _rows(graph: fx.Graph) -> list[tuple[str, str, Any, Any, Any]]:
    """Every node as plain objects, with the names of its operands."""

    def named(value: Any) -> Any:
        return fx.node.map_arg(value, lambda node: _Name(node.name))

    return [(node.op, node.name, node.target, named(node.args), named(node.kwargs)) for node in graph.nodes]


class _Name(str):
    """The name of a node, in the place of the node."""

    __slots__ = ()


def _restored(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if isinstance(value, _Name):
        return nodes[value]
    if isinstance(value, tuple | list):
        return type(value)(_restored(item, nodes) for item in value)
    if isinstance(value, dict):
        return {key: _restored(item, nodes) for key, item in value.items()}
    return value


def _rebuilt(state: dict[str, Any], rows: list[tuple[str, str, Any, Any, Any]]) -> OnnxModule:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for op, name, target, args, kwargs in rows:
        args, kwargs = _restored(args, nodes), _restored(kwargs, nodes)
        nodes[name] = graph.create_node(op, target, args, kwargs, name)
    root = nn.Module()
    root.__dict__.update(state)
    module = OnnxModule(root, graph, "OnnxModule")
    module.training = state.get("training", True)
    module.meta = state.get("meta", {})
    return module
