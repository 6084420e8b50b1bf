"""Errors that arrive otherwise than expected: at some outputs only, or laid out in another way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pcgraph


class Apply(nn.Module):
    """An operation on a parameter."""

    def __init__(self, operation: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.operation = operation

    def forward(self, scale: Tensor) -> Any:
        return self.operation(self.weight * scale)


OPERATIONS: dict[str, Callable[[Tensor], Any]] = {
    "lstm cell": lambda x: nn.LSTMCell(4, 4).requires_grad_(False)(x),
    "eigh": torch.linalg.eigh,
    "eig": torch.linalg.eig,
    "svd": torch.linalg.svd,
    "qr": torch.linalg.qr,
    "split": lambda x: x.split(2),
    "max": lambda x: x.max(dim=0),
    "masked_fill": lambda x: x.masked_fill(torch.eye(4, dtype=torch.bool), x.mean()),  # opaque for dense errors only
    "attention": lambda x: nn.MultiheadAttention(4, 2).requires_grad_(False)(x[:, None], x[:, None], x[:, None]),
}


@pytest.mark.parametrize("layout", ["expanded", "columns", "every other"])
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_every_choice_of_outputs(operation: str, layout: str) -> None:
    """One program meets every set of errors that a loss can hand to it."""
    torch.manual_seed(1)
    model = Apply(OPERATIONS[operation])
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    count = len(_outputs(twin(torch.tensor(1.0))))
    for chosen in range(1, 2**count):
        losses = []
        for candidate in (twin, network):
            torch.manual_seed(2)
            outputs = _outputs(candidate(torch.tensor(1.5)))
            losses.append(sum(_loss(o, layout) for k, o in enumerate(outputs) if chosen >> k & 1))
        for loss in losses:
            loss.backward()  # type: ignore[union-attr]
        assert twin.weight.grad is not None and model.weight.grad is not None
        assert twin.weight.grad.abs().sum() > 0
        assert torch.equal(twin.weight.grad, model.weight.grad)
        twin.zero_grad()
        model.zero_grad()


def _outputs(output: Any) -> list[Tensor]:
    return [o for o in ([output] if isinstance(output, Tensor) else output) if o.requires_grad]


def _loss(output: Tensor, layout: str) -> Tensor:
    value = output.abs() if output.is_complex() else output
    if layout == "expanded":
        return value.sum()
    if layout == "columns":
        value = value.transpose(0, -1)
        return (value * torch.linspace(1, 2, value.numel()).reshape(value.shape)).sum()
    return (value[..., ::2] ** 3).sum()
