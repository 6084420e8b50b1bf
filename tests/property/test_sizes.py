"""Small random models at one batch size after another: programs that follow from those of other sizes are the same.

Sizes and dimensions are small numbers, so that a 2 may be the batch, a side, an index or a dimension, and half of the
models read a value that no gradient comes to, of which only the output can tell that it is wrong.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph

SIZES = (2, 3, 4, 2, 5, 1, 3)
Operation = Callable[[Tensor, int, int], Tensor]


def assigned(h: Tensor, d: int, i: int) -> Tensor:
    h = h.clone()
    h[:, :, i % 2] = h[:, :, 1 - i % 2] * 2
    return h


OPERATIONS: tuple[Operation, ...] = (
    lambda h, d, i: h.select(d, min(i, h.shape[d] - 1)).unsqueeze(d).expand_as(h),
    lambda h, d, i: h[:, :, min(i, h.shape[2] - 1)][:, :, None].expand_as(h),
    lambda h, d, i: h[:, :, :, min(i, h.shape[3] - 1)][..., None] * h,
    lambda h, d, i: h.flip(d),
    lambda h, d, i: h.roll(i, d),
    lambda h, d, i: h.cumsum(d),
    lambda h, d, i: h.softmax(d),
    lambda h, d, i: h.sum(d, keepdim=True).expand_as(h),
    lambda h, d, i: F.normalize(h, dim=d),
    lambda h, d, i: h.unbind(d)[1].unsqueeze(d) + h,
    lambda h, d, i: h.chunk(2, d)[0].mean(d, keepdim=True) + h,
    lambda h, d, i: h.transpose(2, 3) if h.shape[2] == h.shape[3] else h,
    lambda h, d, i: h.diagonal(0, 2, 3)[..., None, :1] + h,
    lambda h, d, i: F.pad(h, (1, 2))[..., 1:-2],
    lambda h, d, i: h.topk(2, d)[0].sum(d, keepdim=True) + h,
    lambda h, d, i: h.max(d, keepdim=True)[0] * h,
    lambda h, d, i: h.tril(i),
    lambda h, d, i: h.repeat(1, 1, 2, 1)[:, :, : h.shape[2]],
    lambda h, d, i: h.unfold(2, 2, 1).mean((-1, 2)).unsqueeze(2) + h,
    lambda h, d, i: h.gather(d, torch.ones_like(h, dtype=torch.long)),
    lambda h, d, i: h.detach(),
    lambda h, d, i: h.tanh(),
    assigned,
)


class Model(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        draw = random.Random(seed)
        channels = draw.randint(2, 4)
        self.one, self.two = nn.Conv2d(1, channels, 1), nn.Conv2d(1, channels, 1)
        self.sides, self.width = (draw.randint(2, 4), draw.randint(2, 4)), draw.randint(2, 4)
        count = draw.randint(2, 5)
        self.steps = [(draw.choice(OPERATIONS), draw.randint(1, 3), draw.randint(0, 2)) for _ in range(count)]
        self.aside = draw.random() < 0.5

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        for layer, side in zip((self.one, self.two), self.sides, strict=True):
            h = y = layer(x[:, :, :side, : self.width])
            for operation, dimension, index in self.steps:
                y = operation(y, dimension, index)
            y = y.detach() if self.aside else y
            ramp = torch.arange(1.0, y[0].numel() + 1).reshape(y.shape[1:])
            total = total + (y * ramp).sum((1, 2, 3)) + h.mean((1, 2, 3))
        return total


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_one_batch_size_after_another(first: int) -> None:
    trained = 0
    for seed in range(first, first + 10):
        plain = Model(seed)
        twin = copy.deepcopy(plain)
        network = pcgraph.compile(twin)
        for size in SIZES:
            x = torch.randn(size, 1, 4, 4)
            seen = []
            for call, model in ((plain, plain), (network, twin)):
                model.zero_grad()
                output = call(x)
                output.square().sum().backward()
                seen.append([output, *(p.grad for p in model.parameters())])
            for one, two in zip(*seen, strict=True):
                assert torch.equal(torch.nan_to_num(one), torch.nan_to_num(two)), f"model {seed}, a batch of {size}"
            trained += 1
    assert trained == 10 * len(SIZES)
