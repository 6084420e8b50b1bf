"""Random numbers. Draws are torch's, from its own generator; seeds in the file are not followed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..dtypes import torch_dtype
from .table import operator


@operator("RandomNormal")
def random_normal(
    shape: Sequence[int], dtype: int = 1, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    """Normal numbers of this shape."""
    return torch.randn(tuple(shape), dtype=torch_dtype(dtype)) * scale + mean


@operator("RandomUniform")
def random_uniform(
    shape: Sequence[int], dtype: int = 1, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Tensor:
    """Uniform numbers of this shape."""
    return torch.rand(tuple(shape), dtype=torch_dtype(dtype)) * (high - low) + low


@operator("RandomNormalLike")
def random_normal_like(
    x: Tensor, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0, seed: float | None = None
) -> Tensor:
    """Normal numbers of the shape of ``x``."""
    return torch.randn_like(x, dtype=None if dtype is None else torch_dtype(dtype)) * scale + mean


@operator("RandomUniformLike")
def random_uniform_like(
    x: Tensor, dtype: int | None = None, high: float = 1.0, low: float = 0.0, seed: float | None = None
) -> Tensor:
    """Uniform numbers of the shape of ``x``."""
    return torch.rand_like(x, dtype=None if dtype is None else torch_dtype(dtype)) * (high - low) + low


@operator("Bernoulli")
def bernoulli(x: Tensor, dtype: int | None = None, seed: float | None = None) -> Tensor:
    """1 with the probability given by each element, else 0."""
    return torch.bernoulli(x).to(x.dtype if dtype is None else torch_dtype(dtype))
