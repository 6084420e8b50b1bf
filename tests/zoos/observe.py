"""One training step of a model, and everything that can be seen of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.equality import difference
from tests.zoos.specimen import Call, Loss, leaves, seed_all


@dataclass
class Seen:
    """What one step left behind: tensors and other values by name, and its seconds."""

    values: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Gap:
    """How two steps differ.

    Attributes:
        names: what differs, with the first difference of each.
        compared: how many values were compared.
        relative: largest difference over the largest entry; infinite where something else than a number differs.
    """

    names: tuple[str, ...]
    compared: int
    relative: float


def step(
    call: Callable[..., Any],
    model: nn.Module,
    arguments: Call,
    loss: Loss,
    seed: int,
    optimizer: torch.optim.Optimizer | None = None,
) -> Seen:
    """Call, loss, backward. Generators are seeded before, gradients removed.

    Args:
        call: what is called: `model` itself or a network compiled from it.
        model: owner of the parameters and buffers that are looked at.
        arguments: used up: gradients arrive in them, and the model may write to them.
        loss: output -> scalar.
        seed: of the generators.
        optimizer: takes a step at the end; parameters are looked at after it.
    """
    args, kwargs = arguments
    model.zero_grad(set_to_none=True)
    seed_all(seed)
    start = time.perf_counter()
    output = call(*args, **kwargs)
    scalar = loss(output)
    scalar.backward()
    seconds = time.perf_counter() - start
    values: dict[str, Any] = {"loss": scalar.detach().clone()}
    for path, leaf in leaves(output):
        values[f"output{path}"] = leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
        if isinstance(leaf, Tensor):
            values[f"output{path} needs a gradient"] = leaf.requires_grad
    for path, leaf in leaves((args, kwargs)):
        if isinstance(leaf, Tensor):
            values[f"argument{path}"] = leaf.detach().clone()
            values[f"gradient of argument{path}"] = None if leaf.grad is None else leaf.grad.clone()
    for name, parameter in model.named_parameters():
        values[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
    for name, buffer in model.named_buffers():
        values[f"buffer {name}"] = buffer.detach().clone()
    values["torch's random state"] = torch.get_rng_state()
    values["Python's random state"] = hash(random.getstate())
    values["numpy's random state"] = hash(np.random.get_state()[1].tobytes())
    if optimizer is not None:
        optimizer.step()
        values |= {f"parameter {name}": p.detach().clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return Seen(values, seconds)


def gap(one: Seen, two: Seen) -> Gap:
    """Compare two steps, to the bit."""
    names, worst = [], 0.0
    gradients = [v for name, v in one.values.items() if name.startswith("gradient") and isinstance(v, Tensor)]
    least = 1e-6 * max((_size(g) for g in gradients), default=0.0)  # a smaller gradient is rounding itself
    for name in {**one.values, **two.values}:
        a, b = one.values.get(name, "nothing"), two.values.get(name, "nothing")
        if (message := _difference(a, b)) is not None:
            names.append(f"{name}: {message}")
            worst = max(worst, _relative(a, b, least if name.startswith("gradient") else 0.0))
    return Gap(tuple(names), len(one.values), worst)


def _difference(a: Any, b: Any) -> str | None:
    if isinstance(a, Tensor) and isinstance(b, Tensor) and (a.is_sparse or b.is_sparse):
        return difference(a.to_dense(), b.to_dense()) if a.layout is b.layout else f"{a.layout} against {b.layout}"
    return difference(a, b)


def _relative(a: Any, b: Any, least: float) -> float:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if not (a.is_floating_point() or a.is_complex()):
        return float("inf")
    scale = max(_size(a), least)
    apart = (a - b).abs().double()
    return float(apart.max()) / scale if scale else float("inf")


def _size(tensor: Tensor) -> float:
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0
