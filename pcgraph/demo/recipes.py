"""Which network is trained how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn, optim

from .data import CLASSES
from .models import ConvNet, LSTMClassifier, ResidualNet
from .names import Model, Source


@dataclass(frozen=True)
class Recipe:
    """How one network is made and trained.

    Attributes:
        title: for people.
        build: image side in pixels -> a fresh network.
        optimizer: parameters -> optimizer.
        optimizer_text: the optimizer in words, for the report.
        epochs: over the training images, by data set.
        recurrent: compared with backprop through the same unrolled network, and with the fused kernel beside it.
    """

    title: str
    build: Callable[[int], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], optim.Optimizer]
    optimizer_text: str
    epochs: dict[Source, int]
    recurrent: bool = False


def _sgd(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(parameters, lr=0.05, momentum=0.9)


def _adamw(parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    return optim.AdamW(parameters, lr=3e-3)


RECIPES = {
    Model.CONV: Recipe(
        "AlexNet-like",
        lambda side: ConvNet(side, CLASSES),
        _sgd,
        "SGD, lr 0.05, momentum 0.9",
        {Source.DIGITS: 16, Source.FASHION_MNIST: 2},
    ),
    Model.RESIDUAL: Recipe(
        "residual",
        lambda side: ResidualNet(CLASSES),
        _sgd,
        "SGD, lr 0.05, momentum 0.9",
        {Source.DIGITS: 8, Source.FASHION_MNIST: 2},
    ),
    Model.LSTM: Recipe(
        "LSTM",
        lambda side: LSTMClassifier(side, CLASSES),
        _adamw,
        "AdamW, lr 0.003",
        {Source.DIGITS: 15, Source.FASHION_MNIST: 2},
        recurrent=True,
    ),
}
