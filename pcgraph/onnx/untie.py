"""Tensors that an exporter merged because they were equal, and that must not learn as one.

At initialisation all biases of a size are equal zeros, all scales of norms equal ones: exporters write them once. A
tensor whose elements are all equal is no sign of tied weights, so every use gets its own copy; any other tensor of
several uses (an embedding that is also the output layer) is taken to be tied on purpose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from .places import is_held
from .values import Leaf, Use, Weight

if TYPE_CHECKING:
    import onnx_ir as ir

Untie: TypeAlias = Literal["auto", "all", "none"]


class Untier:
    """Hands each use its weight: the one of the file, or a copy."""

    def __init__(self, untie: Untie) -> None:
        self.untie = untie
        self._taken: set[Weight] = set()
        self._uniform: dict[Weight, bool] = {}

    def separate(self, weight: Weight) -> bool:
        """Whether every use of the weight is to learn on its own."""
        if not weight.trainable or self.untie == "none":
            return False
        return self.untie == "all" or self._is_uniform(weight)

    def may_part(self, weight: Weight) -> bool:
        """Whether uses of the weight may become tensors of their own, were they to learn."""
        return self.untie != "none" and self._is_uniform(weight)

    def own(self, leaf: Leaf, use: Use) -> Leaf:
        """The leaf for one more use."""
        weight = leaf.weight
        if not weight.shared or not self.separate(weight):
            return leaf
        if weight not in self._taken and not weight.held:
            self._taken.add(weight)
            use_of_it = weight.use  # the first use takes the place of the weight
        else:
            use_of_it = use
        return Leaf(replace(weight, shared=False, held=False, use=use_of_it), leaf.steps)

    def copied(self, leaf: Leaf, out: ir.Value, use: Use) -> Leaf:
        """The result of an Identity of a weight: a tensor of its own, unless nothing is to be untied."""
        weight = leaf.weight
        if not weight.trainable or self.untie == "none":
            return leaf
        return Leaf(replace(weight, shared=len(out.uses()) > 1, held=is_held(out), use=use), leaf.steps)

    def _is_uniform(self, weight: Weight) -> bool:
        if weight not in self._uniform:
            flat = weight.tensor.reshape(-1)
            self._uniform[weight] = bool(flat.numel() and torch.all(flat == flat[0]))
        return self._uniform[weight]
