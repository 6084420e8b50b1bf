"""Tensors that the caller comes to hold by another way than the return value: kept on ``self``, hooked, written.

A run of the model leaves such tensors behind as objects of the run's own autograd graph. Each is made an output of
the network, and then the object itself becomes that output: whoever holds it holds the network's value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import swap_tensors

from ..errors import CaptureError


@dataclass(frozen=True)
class Held:
    """A tensor object that the run left behind.

    Attributes:
        tensor: the object; for an input, what stood in for it.
        output: index of the network's output that it becomes, or None for an input.
        input_index: index of the call's input that it stands for, or None.
        retain: the model called ``retain_grad()`` on it.
        where: the line that made it, for messages.
    """

    tensor: torch.Tensor
    output: int | None
    input_index: int | None
    retain: bool
    where: str


def adopt(held: Sequence[Held], outputs: list[Any], inputs: Sequence[torch.Tensor]) -> None:
    """Turn every held object into the network's output; `outputs` then has the objects themselves.

    Raises:
        CaptureError: somebody out of reach (an autograd graph of the user's own) holds the object as well.
    """
    adopted: dict[int, torch.Tensor] = {}
    for item in reversed(held):  # latest first: what an earlier one's autograd graph holds is gone by then
        hooks, item.tensor._backward_hooks = item.tensor._backward_hooks, None
        if item.input_index is not None:
            target = inputs[item.input_index]
        else:
            assert item.output is not None
            target = item.tensor
            value = outputs[item.output]
            if item.output in adopted:  # another object of the same value
                value = value.view_as(value)
            _become(target, value, item.where)
            if item.output not in adopted:
                adopted[item.output] = outputs[item.output] = target
        if hooks:
            target.register_hook(_all(hooks))
        if item.retain:
            target.retain_grad()


def _become(tensor: torch.Tensor, value: torch.Tensor, where: str) -> None:
    attributes = dict(vars(tensor))
    try:
        swap_tensors(tensor, value)
    except RuntimeError as error:
        raise CaptureError(
            "the model keeps a tensor that needs a gradient where it cannot be replaced by the network's own",
            where=where,
            hint="return it along with the output, or keep tensor.detach()",
        ) from error
    vars(tensor).update(attributes)


def _all(hooks: dict[int, Callable[..., Any]]) -> Callable[[torch.Tensor | None], torch.Tensor | None]:
    """One hook that runs those of a table, as it stands then: the user's handles still remove their hooks.

    The network is one operation, and autograd shows None to the hooks of those of its outputs that no gradient came to.
    In the model's own graph such a value is not reached at all.
    """

    def run(gradient: torch.Tensor | None) -> torch.Tensor | None:
        if gradient is None:
            return None
        for hook in list(hooks.values()):
            changed = hook(gradient)
            gradient = gradient if changed is None else changed
        return gradient

    return run
