"""One training step of a model, and everything that can be seen of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from tests.equality import difference
from tests.opinfo.cases import Built, seed_all
from tests.opinfo.leaves import differentiable, tensors_of
from tests.opinfo.losses import Loss, loss_of, weighted

Seen = dict[str, Any]


def step(call: Callable[..., Any], built: Built, seed: int, loss: Loss = weighted) -> Seen:
    """Predict, learn, and write down outputs, gradients, tensors of the model and of the call, and random state.

    Args:
        call: the model of `built`, or a network that is made of it.
        built: the model and the arguments.
        seed: of all random numbers.
        loss: what to learn from.
    """
    model, args, kwargs = built.model, built.args, built.kwargs
    model.zero_grad(set_to_none=True)
    seed_all(seed)
    output = call(*args, **kwargs)
    leaves, structure = tree_flatten(output)
    seen: Seen = {"structure of the output": structure}
    for k, leaf in enumerate(leaves):
        seen[f"output {k}"] = _kept(leaf)
        seen[f"output {k} needs a gradient"] = isinstance(leaf, Tensor) and leaf.requires_grad
    total = loss_of(built.view(output), loss)
    seen["learns"] = total is not None
    if total is not None:
        total.backward()
    for name, parameter in model.named_parameters():
        seen[f"gradient of {name}"] = _kept(parameter.grad)
        seen[f"parameter {name}"] = _kept(parameter)
    for name, buffer in model.named_buffers():
        seen[f"buffer {name}"] = _kept(buffer)
    for k, argument in enumerate(tensors_of((args, kwargs))):
        seen[f"argument {k}"] = _kept(argument)
        seen[f"gradient of argument {k}"] = _kept(argument.grad)
    seen["random state of torch"] = torch.get_rng_state()
    seen["random state of Python"] = random.getstate()
    state: Any = np.random.get_state()
    seen["random state of numpy"] = (state[0], state[1].tolist(), *state[2:])
    return seen


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def first_difference(one: Seen, two: Seen) -> str | None:
    """Name and size of the first difference, or None: a NaN equals a NaN, everything else is equal to the bit."""
    if one.keys() != two.keys():
        return f"exist on one side only: {sorted(one.keys() ^ two.keys())}"
    for name, mine in one.items():
        message = unlike(mine, two[name])
        if message is not None:
            return f"{name}: {message}"
    return None


def unlike(one: Any, two: Any) -> str | None:
    """What differs between two values, or None.

    >>> unlike(torch.tensor([float("nan")]), torch.tensor([-float("nan")]))
    >>> unlike(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    'torch.float32 [2] against torch.float64 [2]'
    """
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        if isinstance(one, float) and isinstance(two, float) and one != one and two != two:
            return None
        return difference(one, two)
    if one.layout is not two.layout:
        return f"{one.layout} against {two.layout}"
    if one.layout is not torch.strided:
        one, two = one.to_dense(), two.to_dense()
    if one.dtype == two.dtype and one.shape == two.shape and differentiable(one):
        if one.dtype is torch.complex32:  # cannot be compared as it is
            one, two = torch.view_as_real(one), torch.view_as_real(two)
        both = one.isnan() & two.isnan()
        one, two = one.masked_fill(both, 0), two.masked_fill(both, 0)
    return difference(one, two)
