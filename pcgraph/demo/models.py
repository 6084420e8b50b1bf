"""The demo's three networks: plain PyTorch, nothing of pcgraph in them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNet(nn.Sequential):
    """AlexNet's shape for small images: five convolutions, three linear layers, dropout, here with batch norm.

    Images [N, 1, side, side] -> scores [N, classes].
    """

    def __init__(self, side: int, classes: int) -> None:
        left = side // 4  # after two poolings
        super().__init__(
            *_convolution(1, 16),
            nn.MaxPool2d(2),
            *_convolution(16, 32),
            nn.MaxPool2d(2),
            *_convolution(32, 48),
            *_convolution(48, 32),
            *_convolution(32, 32),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(32 * left * left, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, classes),
        )


def _convolution(inside: int, outside: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """Two convolutions and a skip: [N, inside, h, w] -> [N, outside, h / stride, w / stride]."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.skip = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.skip(x)
        return F.relu(y, inplace=True)


class ResidualNet(nn.Module):
    """A stem, four residual blocks and a linear layer: images [N, 1, side, side] -> scores [N, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(1, 16))
        self.blocks = nn.Sequential(Block(16, 16), Block(16, 32, 2), Block(32, 32), Block(32, 64, 2))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(self.stem(x))
        return cast(Tensor, self.head(features.mean((2, 3))))


class LSTMClassifier(nn.Module):
    """Reads an image row by row, one row a time step, and classifies after the last.

    Images [N, 1, steps, width] -> scores [N, classes].
    """

    def __init__(self, side: int, classes: int, hidden: int = 64) -> None:
        super().__init__()
        self.lstm = nn.LSTM(side, hidden, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x.squeeze(1))
        return cast(Tensor, self.head(torch.select(states, 1, -1)))
