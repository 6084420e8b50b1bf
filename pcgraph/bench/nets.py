"""The networks that the benchmark runs: plain PyTorch, nothing of pcgraph in them but one unrolled reference."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """Two 3x3 convolutions and a skip: [N, inside, h, w] -> [N, outside, h / stride, w / stride]."""

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


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a skip: [N, inside, h, w] -> [N, 4 * middle, h / stride, w / stride]."""

    def __init__(self, inside: int, middle: int, stride: int) -> None:
        super().__init__()
        outside = 4 * middle
        self.conv1, self.bn1 = nn.Conv2d(inside, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.down: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.down = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


def resnet50(classes: int = 1000) -> nn.Sequential:
    """ResNet-50 for 224x224 images, the stride in the 3x3 convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    inside = 64
    for middle, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for k in range(blocks):
            layers.append(Bottleneck(inside, middle, 1 if k else stride))
            inside = 4 * middle
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, classes))


def alexnet() -> nn.Sequential:
    """AlexNet's five convolutions and three linear layers for 32x32 images, without dropout.

    With it, contenders that draw their random numbers in another way could not be held against backprop.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(64, 192, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
    for inside, outside in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(inside, outside, 3, 1, 1), nn.ReLU()]
    head = [nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), *head)


def vgg11() -> nn.Sequential:
    """VGG-11 with batch norm for 32x32 images, one linear layer as its head."""
    layers: list[nn.Module] = []
    inside = 3
    for outside, pool in ((64, True), (128, True), (256, False), (256, True), *((512, k % 2 == 1) for k in range(4))):
        layers += [nn.Conv2d(inside, outside, 3, 1, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if pool else []
        inside = outside
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


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
    """Attention and a feed-forward layer, both behind a norm and with a skip: [batch, length, width], causal."""

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


class Experts(nn.Module):
    """A block of experts behind a router that sends each token to one of them, to so many at most.

    Tokens [n, width] -> [n, width]; a token beyond an expert's capacity passes by. The routing is by one-hot masks, so
    all shapes are fixed (Fedus et al., *Switch Transformers*, arXiv 2101.03961).
    """

    def __init__(self, width: int = 64, experts: int = 8, capacity: int = 96) -> None:
        super().__init__()
        self.experts, self.capacity = experts, capacity
        self.norm, self.router = nn.LayerNorm(width), nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, 4 * width) / math.sqrt(width))
        self.down = nn.Parameter(torch.randn(experts, 4 * width, width) / math.sqrt(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        gate, chosen = torch.softmax(self.router(h), -1).max(-1)
        mask = F.one_hot(chosen, self.experts)
        place = (mask.cumsum(0) - 1) * mask  # which seat a token would take with its expert
        seats = F.one_hot(place.clamp(max=self.capacity - 1), self.capacity) * mask.unsqueeze(-1)
        seats = (seats * (place < self.capacity).unsqueeze(-1)).to(x.dtype)
        seated = torch.einsum("nec,nd->ecd", seats, h)
        answers = torch.bmm(F.gelu(torch.bmm(seated, self.up)), self.down)
        return x + gate.unsqueeze(-1) * torch.einsum("nec,ecd->nd", seats, answers)


def moe(width: int = 64) -> nn.Sequential:
    """One block of experts and a head of ten."""
    return nn.Sequential(nn.Linear(width, width), Experts(width), nn.Linear(width, 10))
