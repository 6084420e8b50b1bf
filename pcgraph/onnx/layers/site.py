"""A node for which a module may be built, and what builders do with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import fx, nn

from ..names import module_path
from ..steps import Step
from ..values import Leaf, Use, Value

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..importer import Importer

M = TypeVar("M", bound=nn.Module)


@dataclass
class Site:
    """One node.

    Attributes:
        importer: what imports its graph.
        node: the node.
        op: its operator, "" outside of ``ai.onnx``.
        values: operands.
        attributes: attributes by name.
    """

    importer: Importer
    node: ir.Node
    op: str
    values: list[Value | None]
    attributes: dict[str, Any]

    def value(self, operand: int) -> Value | None:
        """An operand; None if it is left out."""
        return self.values[operand] if operand < len(self.values) else None

    def leaf(self, operand: int) -> Leaf | None:
        """A float operand that is a weight of the file.

        What does not learn every module holds for itself: statistics move in one of them, a parameter may be thawed
        in one. It then goes back to this operand, not to what others read as well.
        """
        value = self.value(operand)
        if not isinstance(value, Leaf) or not (value.weight.initializer or value.trainable):
            return None
        weight = value.weight
        if not weight.tensor.is_floating_point():
            return None
        if weight.trainable or weight.use is not None or not (weight.shared or weight.held):
            return value
        return Leaf(replace(weight, use=Use.of(self.node, operand)), value.steps)

    def rank(self) -> int | None:
        """Dimensions of the first operand, if known."""
        return self.importer.rank(self.node.inputs[0])

    def outputs(self) -> int:
        """Number of outputs in use."""
        return max((i for i, out in enumerate(self.node.outputs, 1) if out.name), default=1)

    def fits(self, leaf: Leaf | None, *steps: Step) -> bool:
        """Whether a module may own this weight in this layout."""
        return leaf is None or self.importer.leaves.fits(leaf, *steps)

    def path(self, *leaves: Leaf | None) -> str:
        """A path for the module, from its weights' names or the node's."""
        names = [leaf.weight.name for leaf in leaves if leaf is not None]
        return self.importer.leaves.names.take(module_path(self.node.name or "", self.node.op_type, *names))

    def set(self, module: nn.Module, path: str, name: str, leaf: Leaf | None, *steps: Step) -> None:
        """Give the module one of its parameters or buffers."""
        if leaf is None:
            return
        buffer = name in module._buffers
        tensor = self.importer.leaves.own(leaf, f"{path}.{name}", *steps, buffer=buffer)
        if buffer:
            module._buffers[name] = tensor
        else:
            module.register_parameter(name, tensor)  # type: ignore[arg-type]

    def call(self, module: nn.Module, path: str, *args: Any) -> fx.Node:
        """Register the module and write its call on the first operand (and others)."""
        self.importer.leaves.add_module(path, module)
        first = self.importer.argument(self.values[0])
        return self.importer.call_module(path, (first, *args), self.node)

    def argument(self, operand: int) -> Any:
        """An operand as an argument of a call."""
        return self.importer.argument(self.value(operand))


def on_meta() -> torch.device:
    """Where modules are made whose tensors are replaced: nothing is allocated, no random numbers drawn."""
    return torch.device("meta")
