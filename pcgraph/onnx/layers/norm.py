"""Norms as modules, and nn.Dropout.

A batch norm or dropout of a file in inference mode is a module that follows ``train()`` and ``eval()``; the imported
module comes in ``eval()``, in which it computes what the file computes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from ..values import Leaf
from .site import Site, on_meta

_BATCH: dict[int, Any] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
_INSTANCE: dict[int, Any] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}
_HALF = (torch.float16, torch.bfloat16)


def _affine(site: Site, *operands: int) -> list[Leaf] | None:
    """Vectors of one type that a module may own."""
    leaves = [site.leaf(operand) for operand in operands]
    found = [leaf for leaf in leaves if leaf is not None and site.fits(leaf)]
    if len(found) < len(operands) or len({leaf.weight.tensor.dtype for leaf in found}) > 1:
        return None
    return found


def _filled(site: Site, module: nn.Module, leaves: list[Leaf], *names: str) -> fx.Node:
    path = site.path(*leaves)
    for name, leaf in zip(names, leaves, strict=True):
        site.set(module, path, name, leaf)
    return site.call(module, path)


def batch_norm(site: Site) -> fx.Node | None:
    """nn.BatchNorm of a node in inference mode; the momentum counts the other way round."""
    get, kind = site.attributes.get, _BATCH.get(site.rank() or 0)
    leaves = _affine(site, 1, 2, 3, 4)
    if kind is None or leaves is None or get("training_mode", 0) or not get("spatial", 1) or site.outputs() > 1:
        return None
    if any(leaf.trainable for leaf in leaves[2:]):
        return None
    momentum = 1 - get("momentum", 0.9)
    dtype = leaves[0].weight.tensor.dtype
    module = kind(leaves[0].shape[0], get("epsilon", 1e-5), round(momentum, 9), device=on_meta(), dtype=dtype)
    module.num_batches_tracked = torch.tensor(0)
    return _filled(site, module, leaves, "weight", "bias", "running_mean", "running_var")


def instance_norm(site: Site) -> fx.Node | None:
    """nn.InstanceNorm."""
    kind, leaves = _INSTANCE.get(site.rank() or 0), _affine(site, 1, 2)
    if kind is None or leaves is None:
        return None
    dtype = leaves[0].weight.tensor.dtype
    epsilon = site.attributes.get("epsilon", 1e-5)
    module = kind(leaves[0].shape[0], epsilon, affine=True, device=on_meta(), dtype=dtype)
    return _filled(site, module, leaves, "weight", "bias")


def layer_norm(site: Site) -> fx.Node | None:
    """nn.LayerNorm of a node with one output; in half precision torch rounds at other places than ONNX."""
    leaves = _affine(site, *((1, 2) if site.value(2) is not None else (1,)))
    if leaves is None or site.outputs() > 1 or leaves[0].weight.tensor.dtype in _HALF:
        return None
    axis, shape, rank = site.attributes.get("axis", -1), leaves[0].shape, site.rank()
    normalised = -axis if axis < 0 else None if rank is None else rank - axis
    if normalised != len(shape) or any(leaf.shape != shape for leaf in leaves):
        return None
    epsilon, dtype = site.attributes.get("epsilon", 1e-5), leaves[0].weight.tensor.dtype
    module = nn.LayerNorm(list(shape), epsilon, bias=len(leaves) > 1, device=on_meta(), dtype=dtype)
    return (
        _filled(site, module, leaves, "weight", "bias") if len(leaves) > 1 else _filled(site, module, leaves, "weight")
    )


def group_norm(site: Site) -> fx.Node | None:
    """nn.GroupNorm, since opset 21, where scale and bias are per channel."""
    leaves = _affine(site, 1, 2)
    if leaves is None or site.importer.job.version("") < 21 or leaves[0].weight.tensor.dtype in _HALF:
        return None
    groups, epsilon = site.attributes["num_groups"], site.attributes.get("epsilon", 1e-5)
    dtype = leaves[0].weight.tensor.dtype
    module = nn.GroupNorm(groups, leaves[0].shape[0], epsilon, device=on_meta(), dtype=dtype)
    return _filled(site, module, leaves, "weight", "bias")


def dropout(site: Site) -> fx.Node | None:
    """nn.Dropout of a node in inference mode without a mask."""
    ratio, mode = site.value(1), site.value(2)
    if site.outputs() > 1:
        return None
    if mode is not None and not (isinstance(mode, Leaf) and not bool(mode.tensor)):
        return None
    if isinstance(ratio, Leaf):
        rate = float(ratio.tensor)
    elif ratio is None:
        rate = float(site.attributes.get("ratio", 0.5))
    else:
        return None
    return site.call(nn.Dropout(rate), site.path())
