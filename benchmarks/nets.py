"""The networks that the benchmarks run: seeded, with inputs and labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Made = tuple[nn.Module, Tensor, Tensor]


def mlp(width: int, hidden: int, inputs: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """`hidden` layers of one width and a head of ten."""
    layers: list[nn.Module] = []
    for k in range(hidden):
        layers += [nn.Linear(width if k else inputs, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def lenet() -> nn.Sequential:
    """For 28x28 images of one channel."""
    features = [
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    head = [nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*features, *head)


class BasicBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.down: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.down = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


def resnet18() -> nn.Sequential:
    """ResNet-18 for 32x32 images: 3x3 stem, no first pooling."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    inside = 64
    for outside, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [BasicBlock(inside, outside, stride), BasicBlock(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class HandRNN(nn.Module):
    """A tanh network in a Python loop, one loss at the end. x: [batch, time, features]."""

    def __init__(self, features: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.w_x, self.w_h = nn.Linear(features, hidden), nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, 10)
        self.h0 = nn.Parameter(torch.zeros(1, hidden))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.h0
        for step in x.unbind(1):
            h = torch.tanh(self.w_x(step) + self.w_h(h))
        return self.out(h)


class HandLSTM(nn.Module):
    """An LSTM in a Python loop. x: [batch, time, features]."""

    def __init__(self, features: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.w_x, self.w_h = nn.Linear(features, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        self.out = nn.Linear(hidden, 10)
        self.h0, self.c0 = nn.Parameter(torch.zeros(1, hidden)), nn.Parameter(torch.zeros(1, hidden))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.h0
        c: Tensor = self.c0
        for step in x.unbind(1):
            i, f, g, o = (self.w_x(step) + self.w_h(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


class NativeLSTM(nn.Module):
    """nn.LSTM, which runs as one fused kernel. x: [batch, time, features]."""

    def __init__(self, features: int = 32, hidden: int = 128) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(features, hidden, batch_first=True), nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class UnrolledLSTM(nn.Module):
    """The same parameters, run as pcgraph unrolls them, for plain backprop through the unrolled network."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__()
        from pcgraph.capture.recurrent import UNROLLED

        assert isinstance(native, NativeLSTM)
        self.lstm, self.out = native.lstm, native.out
        self.unrolled = UNROLLED[torch.lstm]

    def forward(self, x: Tensor) -> Tensor:
        zero = x.new_zeros(1, x.shape[0], self.lstm.hidden_size)
        weights = self.lstm._flat_weights
        sequence = self.unrolled(x, (zero, zero), weights, True, 1, 0.0, self.training, False, True)[0]
        return self.out(sequence[:, -1])


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        parts = self.qkv(self.ln1(x)).split(d, 2)
        q, k, v = (part.view(b, t, self.heads, d // self.heads).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.project(attended)
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    """Decoder-only with a tied embedding. ids: [batch, length]."""

    def __init__(
        self, vocabulary: int = 256, width: int = 128, layers: int = 4, heads: int = 4, length: int = 64
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embed.weight, std=1 / math.sqrt(width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def labels(*shape: int, classes: int = 10) -> Tensor:
    return torch.randint(0, classes, shape)


@dataclass(frozen=True)
class Net:
    """A network of the step benchmark.

    Attributes:
        make: model, input, labels; seeded by `build`.
        unrolled: makes the module that plain backprop runs through, where that is not the model itself.
    """

    make: Callable[[], Made]
    unrolled: Callable[[nn.Module], nn.Module] | None = None

    def build(self) -> Made:
        torch.manual_seed(0)
        return self.make()


NETS: dict[str, Net] = {
    "mlp-64": Net(lambda: (mlp(64, 4, 784), torch.randn(20, 784), labels(20))),
    "mlp-512": Net(lambda: (mlp(512, 4, 784), torch.randn(64, 784), labels(64))),
    "lenet": Net(lambda: (lenet(), torch.randn(64, 1, 28, 28), labels(64))),
    "resnet18": Net(lambda: (resnet18(), torch.randn(16, 3, 32, 32), labels(16))),
    "rnn-50": Net(lambda: (HandRNN(), torch.randn(32, 50, 32), labels(32))),
    "lstm-50": Net(lambda: (HandLSTM(), torch.randn(32, 50, 32), labels(32))),
    "nn.LSTM-50": Net(lambda: (NativeLSTM(), torch.randn(32, 50, 32), labels(32)), UnrolledLSTM),
    "gpt-4": Net(lambda: (GPT(), labels(8, 64, classes=256), labels(8, 64, classes=256))),
}


def deep_mlp(widths: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Layers of these widths with an activation between."""
    layers: list[nn.Module] = []
    for k, (inside, outside) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(inside, outside), *([activation()] if k < len(widths) - 2 else [])]
    return nn.Sequential(*layers)


EXTRA: dict[str, Net] = {
    "mlp-300": Net(lambda: (deep_mlp((784, 300, 300, 300, 10), nn.Tanh), torch.randn(64, 784), labels(64))),
    "lstm-1000": Net(lambda: (HandLSTM(), torch.randn(32, 1000, 32), labels(32))),
}
"""Networks that only some benchmarks run."""
