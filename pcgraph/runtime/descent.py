"""The step of an optimizer as part of a training step: plain gradient descent goes into the program.

Any other optimizer is called. Either way ``p.grad`` of its parameters is None before and after. What plain descent is
must be beyond doubt: `torch.optim.SGD` itself, without momentum, decay and the like, and nobody waits for its step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def rates(
    optimizer: torch.optim.Optimizer, leaves: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]
) -> dict[int, float] | None:
    """Negative learning rates by place among `leaves`, if a step is nothing but ``p -= lr * p.grad``.

    Args:
        optimizer: of anyone's.
        leaves: what learns, by the program.
        inputs: of the call.

    Returns:
        None if it is something else, or if an input lies in the memory of a parameter.
    """
    if type(optimizer) is not torch.optim.SGD or _watched(optimizer):
        return None
    found: dict[int, float] = {}
    for group in optimizer.param_groups:
        if any(group.get(name) for name in _OFF) or type(group["lr"]) not in (float, int):
            return None
        found.update((id(p), -float(group["lr"])) for p in group["params"])
    by_place = {k: found[id(leaf)] for k, leaf in enumerate(leaves) if id(leaf) in found}
    memories = {_memory(leaves[k]) for k in by_place}
    plain = all(leaves[k].layout is torch.strided and not leaves[k].is_complex() for k in by_place)
    return by_place if plain and memories.isdisjoint(map(_memory, inputs)) else None


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
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0
