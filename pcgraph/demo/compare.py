"""How far apart two trained models are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .data import Images
from .recipes import Recipe
from .train import Learner, Trained, accuracy


def largest_difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """Largest absolute difference over pairs of tensors; NaN if either side has one.

    >>> largest_difference([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.5])])
    0.5
    """
    gaps = [(a.detach().double() - b.detach().double()).abs().max() for a, b in zip(ours, theirs, strict=True)]
    return float(torch.stack(gaps).max()) if gaps else 0.0


def figures(recipe: Recipe, trained: Trained, images: Images) -> dict[str, Any]:
    """What the report says of one network; ``exact`` if Z-IL ended where backprop did, to the last bit."""
    backprop, z_il, fused = (trained.learners.get(name) for name in ("backprop", "z-il", "fused"))
    assert backprop is not None and z_il is not None
    weights = _weight_difference(z_il, backprop)
    buffers = largest_difference(z_il.model.buffers(), backprop.model.buffers())
    same_random_state = torch.equal(z_il.random_state, backprop.random_state)
    result: dict[str, Any] = {
        "network": recipe.title,
        "parameters": sum(p.numel() for p in backprop.model.parameters()),
        "optimizer": recipe.optimizer_text,
        "steps": trained.steps,
        "inference_steps_T": trained.inference_steps,
        "exact": weights == 0 and buffers == 0 and same_random_state,
        "largest_weight_difference": weights,
        "largest_buffer_difference": buffers,
        "same_random_state": same_random_state,
        "accuracy": {
            one.name: accuracy(one.network, images.test_x, images.test_y) for one in trained.learners.values()
        },
        "final_loss": {one.name: one.loss for one in trained.learners.values()},
        "step_ms": {one.name: one.milliseconds() for one in trained.learners.values()},
        "step_time_ratio": z_il.milliseconds() / backprop.milliseconds(),
        "first_step_s": z_il.seconds[0],
    }
    if fused is not None:
        result["reference"] = "backprop through the same unrolled network"
        result["fused_kernel"] = {
            "largest_weight_difference": _weight_difference(z_il, fused),
            "step_time_ratio": z_il.milliseconds() / fused.milliseconds(),
        }
    return result


def _weight_difference(ours: Learner, theirs: Learner) -> float:
    return largest_difference(ours.model.parameters(), theirs.model.parameters())
