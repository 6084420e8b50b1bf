"""What an ONNX value can be while a file is imported.

- `Leaf`: a tensor that is known now, a parameter's if it is trainable, a constant otherwise.
- `Sizes`: whole numbers of which some are sizes of tensors that only a call knows, so that chains such as
  Shape, Gather, Concat, Reshape leave one ``x.reshape([x.size(0), -1])`` behind.
- `torch.fx.Node`: everything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import fx

from .places import Within, within
from .steps import Step, Steps, run, simplified

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Use:
    """One operand of one node.

    Attributes:
        output: name of the node's first output.
        operand: index.
        within: the graph in which the node lies.
    """

    output: str
    operand: int
    within: Within | None = ()

    @classmethod
    def of(cls, node: ir.Node, operand: int) -> Use:
        """This operand of this node."""
        return cls(node.outputs[0].name or "", operand, within(node))


@dataclass(eq=False)
class Weight:
    """A tensor of the file, or one that was computed from those.

    Attributes:
        name: its ONNX name.
        tensor: its elements, in the file's layout; not to be written to.
        trainable: whether it becomes a parameter that learns.
        initializer: whether the file holds it (False for folded constants).
        shared: whether several nodes use this very weight and are to stay tied.
        use: the operand that this copy was made for; None if it stands for the initializer itself.
        held: whether an output of a graph, or a graph inside of a node, reads it as well, and no copy can.
        within: the graph in which the initializer lies.
        mixed: whether it is no parameter as a whole, and may be one for some of its uses, see `Job.own`.
    """

    name: str
    tensor: torch.Tensor
    trainable: bool = False
    initializer: bool = False
    shared: bool = False
    use: Use | None = None
    held: bool = False
    within: Within | None = ()
    mixed: bool = False


@dataclass(frozen=True, eq=False)
class Leaf:
    """A weight as a node sees it, after permutations that cost nothing."""

    weight: Weight
    steps: Steps = ()

    @property
    def tensor(self) -> torch.Tensor:
        return run(self.steps, self.weight.tensor)

    @property
    def trainable(self) -> bool:
        return self.weight.trainable

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def then(self, *steps: Step) -> Leaf:
        """The same weight after more steps."""
        return Leaf(self.weight, simplified((*self.steps, *steps)))


Entry: TypeAlias = int | fx.Node


@dataclass(frozen=True)
class Sizes:
    """A scalar or a list of whole numbers (or truth values), partly known only at run time.

    Attributes:
        entries: a number, or a node that gives one.
        scalar: whether it is a tensor of no dimension.
        dtype: int64, int32 or bool.
        natural: which entries cannot be negative.
    """

    entries: tuple[Entry, ...]
    scalar: bool
    dtype: torch.dtype = torch.int64
    natural: frozenset[int] = field(default=frozenset())

    @property
    def known(self) -> bool:
        return not any(isinstance(entry, fx.Node) for entry in self.entries)

    @property
    def argument(self) -> Entry | list[Entry]:
        """As an argument of a function that reads numbers in Python."""
        return self.entries[0] if self.scalar else list(self.entries)


Value: TypeAlias = Leaf | Sizes | fx.Node


def constant(tensor: torch.Tensor, name: str) -> Leaf:
    """A folded constant."""
    return Leaf(Weight(name, tensor))
