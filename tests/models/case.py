"""One entry of the zoo: a seeded model with its arguments and a loss."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

Made = tuple[nn.Module, tuple[Any, ...]]
FLOATS = (torch.float32, torch.bfloat16, torch.float64)
WIDE = (torch.float32, torch.float64)
"""For models whose CPU kernels have no bfloat16 (fft, linear algebra)."""


def seed_all(seed: int) -> None:
    """Seed every generator that a model of the zoo may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)


def weighted_squares(output: Any) -> Tensor:
    """Sum over all floating output tensors of the mean of ``w * y**2``; ``w`` is a fixed ramp: no two entries tie."""
    total: Tensor | None = None
    for k, y in enumerate(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)):
        if y.is_complex():
            y = torch.view_as_real(y)
        if not y.is_floating_point():
            continue
        ramp = torch.linspace(0.5 + 0.1 * k, 1.5 + 0.1 * k, max(y.numel(), 1), dtype=torch.float64)
        term = (ramp[: y.numel()].reshape(y.shape).to(y.dtype) * y * y).mean()
        total = term if total is None else total + term
    assert total is not None, "the model returned no floating tensor"
    return total


def own_loss(output: Any) -> Tensor:
    """For models that compute their losses inside forward and return the scalar."""
    assert isinstance(output, Tensor) and output.dim() == 0
    return output


def drop_last_sample(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments with one sample fewer: every tensor loses the last entry of its first dimension."""
    return tree_map_only(Tensor, lambda t: t[:-1].detach().clone().requires_grad_(t.requires_grad), args)


@dataclass(frozen=True)
class Case:
    """A model of the zoo.

    Attributes:
        name: unique key.
        make: seeded; returns a float32 model in training mode and the positional arguments of a call.
        loss: output -> scalar tensor, deterministic.
        keywords: seeded after `make`; the call's keyword arguments.
        train: the mode the model is tested in.
        dtypes: the floating types in which plain torch runs it on a CPU.
        rebatch: arguments -> arguments of another batch size; None where the model has no batch dimension.
        native: the model holds a recurrent kernel that oneDNN would replace by a fused one, which rounds
            differently; compare with oneDNN off.
    """

    name: str
    make: Callable[[], Made]
    loss: Callable[[Any], Tensor] = weighted_squares
    keywords: Callable[[], dict[str, Any]] = dict
    train: bool = True
    dtypes: tuple[torch.dtype, ...] = FLOATS
    rebatch: Callable[[tuple[Any, ...]], tuple[Any, ...]] | None = drop_last_sample
    native: bool = False

    def build(self, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, tuple[Any, ...], dict[str, Any]]:
        """Model, args and kwargs with every floating tensor in `dtype`; the same object stays the same object."""
        model, args = self.make()
        keywords = self.keywords()
        cast: dict[int, Tensor] = {}

        def to_dtype(tensor: Tensor) -> Tensor:
            if id(tensor) not in cast:
                wanted = tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
                cast[id(tensor)] = wanted.requires_grad_(tensor.requires_grad)
            return cast[id(tensor)]

        args, keywords = tree_map_only(Tensor, to_dtype, (args, keywords))
        return model.to(dtype).train(self.train), args, keywords


class Registry(dict[str, Case]):
    """Cases by name, filled by a decorator on the functions that make the models."""

    def case(self, **flags: Any) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
        """Register the decorated function under its own name; it runs seeded."""

        def register(function: Callable[[], Made]) -> Callable[[], Made]:
            name = function.__name__

            def make() -> Made:
                seed_all(sum(map(ord, name)))
                return function()

            assert name not in self, f"two models are called {name}"
            self[name] = Case(name, make, **flags)
            return function

        return register
