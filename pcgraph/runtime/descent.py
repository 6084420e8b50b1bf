"""The step of an optimizer as part of a training step: plain gradient descent goes into the program.

Any other optimizer is called. Either way ``p.grad`` of its parameters is None before and after. What plain descent is
must be beyond doubt: `torch.optim.SGD` itself, without momentum, decay and the like, and nobody waits for its step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.optim import optimizer as torch_optimizer

from ..errors import PCGraphError

_OFF = ("momentum", "dampening", "weight_decay", "nesterov", "maximize", "differentiable", "fused")


def refuse_pending(optimizer: torch.optim.Optimizer) -> None:
    """Gradients from before would be part of the step.

    Raises:
        PCGraphError: a parameter has a gradient, or the optimizer needs one to call.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise PCGraphError(f"not an optimizer: {type(optimizer).__name__}", hint="pass one of torch.optim")
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                raise PCGraphError(
                    "a parameter has a gradient already, which this step would take for its own",
                    hint="call optimizer.zero_grad() first; to add up gradients, call optimizer.step() yourself",
                )


def finish(optimizer: torch.optim.Optimizer) -> None:
    """The optimizer's own step, with the gradients that are there; they are gone then."""
    optimizer.step()
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = None


class Descents:
    """Which leaves of a program learn by plain descent, by optimizer; worked out once and compared at every call."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[torch.optim.Optimizer, tuple[Any, Plan]] = WeakKeyDictionary()

    def plan(
        self, optimizer: torch.optim.Optimizer, leaves: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
    ) -> Plan | None:
        """The plan for these leaves, if a step is nothing but ``p -= lr * p.grad``.

        Args:
            optimizer: of anyone's.
            leaves: what learns, by the program.
            inputs: of the call.

        Returns:
            None if it is something else, or if an input lies in the memory of a parameter.
        """
        if type(optimizer) is not torch.optim.SGD or _watched(optimizer):
            return None
        groups = optimizer.param_groups
        for group in groups:
            if any([group.get(name) for name in _OFF]) or type(group["lr"]) not in (float, int):
                return None
        key = [list(map(id, leaves)), *[(id(group), *map(id, group["params"])) for group in groups]]
        known = self._known.get(optimizer)
        if known is None or known[0] != key:
            known = self._known[optimizer] = key, Plan(groups, leaves)
        plan = known[1]
        if not plan.places or not plan.memories.isdisjoint(map(_memory, inputs)):
            return None
        return plan


class Plan:
    """Plain descent on some leaves.

    Args:
        groups: of the optimizer's parameters.
        leaves: of the program.

    Attributes:
        places: of those that learn, among the leaves; empty where some are not plain tensors.
        memories: that they lie in.
        function: of the program that ends with their descent, once it is known; and its order of the places.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], leaves: Sequence[torch.Tensor]) -> None:
        group_of = {id(p): group for group in groups for p in group["params"]}
        self._groups = {k: group_of[id(leaf)] for k, leaf in enumerate(leaves) if id(leaf) in group_of}
        if any(leaves[k].layout is not torch.strided or leaves[k].is_complex() for k in self._groups):
            self._groups = {}
        self.places = tuple(self._groups)
        self._leaves = [leaves[k] for k in self.places]
        self.function: Any = None
        self.order: Sequence[int] = self.places

    @property
    def memories(self) -> set[int]:
        """As they are now: ``p.data = ...`` moves a parameter."""
        return set(map(_memory, self._leaves))

    def rates(self) -> list[float]:
        """Negative learning rates as they are now, in order."""
        return [-float(self._groups[k]["lr"]) for k in self.order]


def stepped(optimizer: torch.optim.Optimizer) -> None:
    """Let a learning rate scheduler know that there was a step, as the wrapper that it puts around it does."""
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        optimizer._opt_called = True  # type: ignore[attr-defined]


def _watched(optimizer: torch.optim.SGD) -> bool:
    """Whether calling the step would call somebody else."""
    hooks: list[Any] = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    hooks += [torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks]
    hooks.append(getattr(optimizer, "grad_scale", None) is not None)
    own = optimizer.__dict__.get("step")  # set on the object: a scheduler's wrapper, or the user's
    return any(hooks) or (own is not None and not hasattr(own, "_wrapped_by_lr_sched"))


def _memory(tensor: torch.Tensor) -> int:
    """Where the memory behind a tensor begins, whoever shares it in whatever way."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided and tensor.numel() else id(tensor)
