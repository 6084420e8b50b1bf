"""Layouts of value nodes and error nodes, which have memory of their own, from those of predictions, which may not."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..graph import TensorSpec


def separate(spec: TensorSpec) -> bool:
    """Whether every entry has memory of its own (not so in what ``expand`` returns)."""
    reach = 0
    for stride, size in sorted(zip(spec.stride, spec.shape, strict=bool(spec.stride))):
        if size > 1:
            if stride <= reach:
                return False
            reach += stride * (size - 1)
    return True


def dense(spec: TensorSpec) -> TensorSpec:
    """Layout of ``torch.empty_like``: the same order of dimensions without gaps."""
    if len(spec.stride) != len(spec.shape):
        return spec
    like = torch.empty_like(torch.empty_strided(spec.shape, spec.stride, device="meta"))
    return replace(spec, stride=tuple(like.stride()))


def error_layout(spec: TensorSpec) -> TensorSpec:
    """Layout of the error node of a value."""
    return replace(dense(spec), requires_grad=False)
