"""What all parts of one import share: the file, the options, the limits, the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import OnnxImportError
from .fold import Folder
from .limits import Limits
from .places import is_held, within
from .progress import Progress
from .roles import Trainable, is_trainable, uses_from, uses_of
from .untie import Untier
from .values import Leaf, Use, Weight

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

Quantized: TypeAlias = Literal["refuse", "dequantize"]


@dataclass
class Job:
    """One import.

    Attributes:
        file: the file's name, for errors.
        opsets: version of every domain.
        limits: bounds.
        trainable: which weights learn.
        untier: which weights are copied.
        quantized: what to do with quantised files.
        original: opset version of ``ai.onnx`` before the file was converted.
        pinned: whether shapes in the file may be relied on, because the caller promised them.
        unreached: values from which no gradient comes to the outputs.
        progress: whom to tell.
    """

    file: str
    opsets: dict[str, int]
    limits: Limits
    trainable: Trainable
    untier: Untier
    quantized: Quantized
    original: int
    pinned: bool
    unreached: frozenset[ir.Value]
    progress: Progress
    folder: Folder = field(init=False)
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.folder = Folder(self.limits)

    def version(self, domain: str) -> int:
        """The opset version of a domain."""
        return self.opsets.get(domain, 1)

    def version_of(self, operator: str, domain: str) -> int:
        """The version that defines an operator. onnx's converter leaves slopes of PRelu as they were."""
        return min(self.original, self.version("")) if (domain, operator) == ("", "PRelu") else self.version(domain)

    def weight(self, value: ir.Value, tensor: torch.Tensor) -> Leaf:
        """A tensor of the file, in its role."""
        name, uses, reached = value.name or "unnamed", uses_of(value), value not in self.unreached
        learns = reached and is_trainable(name, tensor, uses, self.trainable, self.version(""))
        weight = Weight(name, tensor, learns, True, len(value.uses()) > 1, held=is_held(value), within=within(value))
        if reached and not learns and len(uses) > 1 and tensor.is_floating_point():
            weight.mixed = self.trainable != "none" and self.untier.may_part(weight)
        return Leaf(weight)

    def own(self, leaf: Leaf, node: ir.Node, operand: int) -> Leaf:
        """The leaf for one operand, which may learn on its own.

        At initialisation a batch norm's scale and running variance are equal ones, bias and running mean equal zeros,
        and exporters write each once: what one use forbids, another one may need.
        """
        weight, use = leaf.weight, Use.of(node, operand)
        if weight.trainable:
            return self.untier.own(leaf, use)
        if not weight.mixed:
            return leaf
        learns = is_trainable(weight.name, weight.tensor, uses_from(node, operand), self.trainable, self.version(""))
        if not learns:
            return leaf
        return Leaf(replace(weight, trainable=True, shared=False, mixed=False, held=False, use=use), leaf.steps)

    def check_time(self) -> None:
        """Raise if the import has taken too long."""
        if time.monotonic() - self.started > self.limits.seconds:
            raise OnnxImportError(
                f"the import takes more than {self.limits.seconds:g} s",
                file=self.file,
                hint="limits=pcgraph.onnx.Limits(seconds=...)",
            )
