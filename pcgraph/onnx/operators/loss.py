"""Losses as operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .table import operator

_NEVER = -100  # torch's own default: no class has this number


@operator("NegativeLogLikelihoodLoss", fixed=(2,))
def nll_loss(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood of log probabilities [N, C, *]."""
    ignored = _NEVER if ignore_index is None else ignore_index
    return F.nll_loss(x, target.long(), weight, ignore_index=ignored, reduction=reduction)


@operator("SoftmaxCrossEntropyLoss", fixed=(2,), counted=True)
def cross_entropy(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
    outputs: int = 1,
) -> Tensor | tuple[Tensor, Tensor]:
    """Cross entropy of scores [N, C, *]; the second output is the log probabilities."""
    log_probabilities = torch.log_softmax(x, 1)
    loss = nll_loss(log_probabilities, target, weight, ignore_index, reduction)
    return (loss, log_probabilities) if outputs > 1 else loss
