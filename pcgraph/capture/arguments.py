"""Arguments of recorded calls: their tensors, and the same structure with fx nodes in place of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from ..errors import CaptureError
from .sources import user_source


def collect(value: Any, into: list[torch.Tensor]) -> None:
    """Append every tensor inside nested arguments, in order."""
    if isinstance(value, torch.Tensor):
        into.append(value)
    elif isinstance(value, tuple | list):
        for item in value:
            collect(item, into)
    elif isinstance(value, dict):
        for item in value.values():
            collect(item, into)
    elif isinstance(value, slice):
        for item in (value.start, value.stop, value.step):
            collect(item, into)


def to_fx(value: Any, nodes: dict[int, fx.Node]) -> Any:
    """The arguments with the tensors' nodes in their places."""
    if isinstance(value, torch.Tensor):
        return nodes[id(value)]
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, np.ndarray):
        return value.copy()  # the user may write to it later
    if isinstance(value, tuple):
        items = [to_fx(item, nodes) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [to_fx(item, nodes) for item in value]
    if isinstance(value, dict):
        return {key: to_fx(item, nodes) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(to_fx(item, nodes) for item in (value.start, value.stop, value.step)))
    return value


def position(args: Any, kwargs: Any, node: fx.Node) -> int | str:
    """Where among the arguments a node stands: an index, or a keyword."""
    out = kwargs.get("out")
    if out is node:
        return "out"
    for index, value in enumerate(args):
        if value is node:
            return index
    for key, value in kwargs.items():
        if value is node:
            return str(key)
    raise CaptureError(
        "a call writes to several tensors at once (out=(...), or a list), which pcgraph cannot follow",
        where=str(user_source()),
        hint="let it return new tensors: values, places = torch.topk(x, k); or write to one after the other",
    )


def replaced(args: Any, kwargs: Any, position: int | str, node: fx.Node) -> tuple[Any, Any]:
    """The arguments with another node at one position."""
    if isinstance(position, int):
        return (*args[:position], node, *args[position + 1 :]), kwargs
    return args, {**kwargs, position: node}
