"""Small networks of the paper's kinds, for one update and its divergence; in the type that is asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(hidden: int, width: int = 64, inputs: int = 32, outputs: int = 10) -> nn.Sequential:
    """`hidden` tanh layers: [batch, inputs] -> [batch, outputs]."""
    sizes = [inputs, *[width] * hidden]
    layers: list[nn.Module] = []
    for inside, outside in itertools.pairwise(sizes):
        layers += [nn.Linear(inside, outside), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class ManyToOne(nn.Module):
    """The paper's recurrent network: ``h_t = tanh(W_x x_t + W_h h_{t-1})``, one output at the end (section 4)."""

    def __init__(self, inputs: int = 16, width: int = 32, outputs: int = 10) -> None:
        super().__init__()
        self.w_x, self.w_h, self.w_y = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, time, inputs] -> [batch, outputs]."""
        h = torch.tanh(self.w_x(x[:, 0]))
        for t in range(1, x.shape[1]):
            h = torch.tanh(self.w_x(x[:, t]) + self.w_h(h))
        return self.w_y(h)


def cnn() -> nn.Sequential:
    """Two convolutions with pooling, and a head: [batch, 1, 12, 12] -> [batch, 10]."""
    body = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))


class Residual(nn.Module):
    """x + W tanh(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width], the same."""
        return x + self.linear(torch.tanh(x))


def residual(blocks: int, width: int = 64, inputs: int = 32, outputs: int = 10) -> nn.Sequential:
    """A stream of `width` with residual blocks: [batch, inputs] -> [batch, outputs]."""
    stream = [Residual(width) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(inputs, width), *stream, nn.Linear(width, outputs))


def squared(output: Tensor, target: Tensor) -> Tensor:
    """``1/2 sum (y - mu)^2``, predictive coding's own loss; of class numbers their one-hot code."""
    if not target.is_floating_point():
        target = F.one_hot(target, output.shape[-1]).to(output.dtype)
    return F.mse_loss(output, target, reduction="sum") / 2


@dataclass(frozen=True)
class Net:
    """A network, and the shapes of what it takes and gives.

    Attributes:
        make: builds it.
        x: shape of a batch.
        y: shape of the targets.
    """

    make: Callable[[], nn.Module]
    x: tuple[int, ...]
    y: tuple[int, ...]

    def built(self, seed: int, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
        """Network, inputs and targets; drawn in float64, so that they are the same in every type."""
        torch.manual_seed(seed)
        model = self.make().to(dtype)
        return (
            model,
            torch.randn(self.x, dtype=torch.float64).to(dtype),
            torch.randn(self.y, dtype=torch.float64).to(dtype),
        )


NETS = {
    "MLP": Net(lambda: mlp(3), (20, 32), (20, 10)),
    "RNN": Net(ManyToOne, (20, 8, 16), (20, 10)),
    "CNN": Net(cnn, (20, 1, 12, 12), (20, 10)),
    "residual MLP": Net(lambda: residual(3), (20, 32), (20, 10)),
}
