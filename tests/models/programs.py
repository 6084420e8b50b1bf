"""Models that are more than a chain of operations: own gradients, checkpoints, randomness, Python state."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .case import Made, Registry, own_loss
from .feedforward import dense

MODELS = Registry()


class Binarise(torch.autograd.Function):
    """Straight-through: the sign forward, the identity inside [-1, 1] backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.where(x >= 0, torch.ones_like(x), -torch.ones_like(x))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1)


class Binary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = Binarise.apply(self.one(x))
        h = Binarise.apply(F.linear(h, Binarise.apply(self.two.weight), self.two.bias))
        return self.three(h)


@MODELS.case()
def straight_through() -> Made:
    return Binary(), (torch.randn(4, 6),)


class Reverse(torch.autograd.Function):
    """Gradient reversal with a strength that is no tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grad, None


class DomainAdversary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.label, self.domain = nn.Linear(6, 8), nn.Linear(8, 3), dense([8, 6, 2], nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.trunk(x))
        return self.label(h), self.domain(Reverse.apply(h, 0.3))


@MODELS.case()
def gradient_reversal() -> Made:
    return DomainAdversary(), (torch.randn(4, 6),)


class SwishTwo(torch.autograd.Function):
    """Two results, one of them not differentiable, and two operands that need gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(slope * x)
        ctx.save_for_backward(x, slope, gate)
        active = gate > 0.5
        ctx.mark_non_differentiable(active)
        return x * gate, active

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        x, slope, gate = ctx.saved_tensors
        inner = gate * (1 - gate)
        return grad * (gate + x * slope * inner), (grad * x * x * inner).sum()


class OwnSwish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)
        self.slope = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        h, active = SwishTwo.apply(self.one(x), self.slope)
        return self.two(h * active)


@MODELS.case()
def own_function_with_two_outputs() -> Made:
    return OwnSwish(), (torch.randn(4, 6),)


class Checkpointed(nn.Module):
    """Blocks with dropout that are run again for their gradients, on the same random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        blocks = [nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 8)) for _ in range(3)]
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return self.head(x)


@MODELS.case()
def checkpointed_blocks() -> Made:
    return Checkpointed(), (torch.randn(4, 6),)


class Variational(nn.Module):
    """Noise by torch.randn_like; the loss is made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = dense([8, 10, 6], nn.ReLU), dense([3, 10, 8], nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        divergence = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
        return F.mse_loss(self.decoder(code), x) + 0.1 * divergence.mean()


@MODELS.case(loss=own_loss)
def variational_autoencoder() -> Made:
    return Variational(), (torch.randn(4, 8),)


class Noisy(nn.Module):
    """Random draws of several kinds, with and without a gradient through them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x) + 0.1 * torch.randn(x.shape[0], 8, dtype=x.dtype)
        h = h * torch.bernoulli(torch.full_like(h, 0.8)) + torch.rand(8, dtype=x.dtype)
        h = F.gumbel_softmax(self.two(h), tau=0.7, hard=True)
        return torch.cat([h[:, torch.randperm(8)], torch.empty_like(h).uniform_(0, 0.1) * h], dim=1)


@MODELS.case()
def random_draws() -> Made:
    return Noisy(), (torch.randn(4, 6),)


class Codebook(nn.Module):
    """Vector quantisation: nearest code, straight-through by detach, two auxiliary losses."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
        self.codes = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        distance = z.square().sum(1, keepdim=True) - 2 * z @ self.codes.weight.T + self.codes.weight.square().sum(1)
        code = self.codes(distance.argmin(1))
        commitment = F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())
        return self.decoder(z + (code - z).detach()) - x, commitment


@MODELS.case()
def vector_quantiser() -> Made:
    return Codebook(), (torch.randn(4, 6),)


class StochasticDepth(nn.Module):
    """Python's own random numbers decide which blocks run: another graph at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for k, block in enumerate(self.blocks):
            if k == 0 or not self.training or random.random() > 0.4:
                x = x + torch.tanh(block(x))
        return x


@MODELS.case()
def stochastic_depth() -> Made:
    return StochasticDepth(), (torch.randn(4, 6),)


class Counting(nn.Module):
    """A Python counter changes what the next call computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.layer(x)
        return y / self.calls if self.calls % 3 else torch.relu(y)


@MODELS.case()
def python_counter() -> Made:
    return Counting(), (torch.randn(4, 6),)


class Branching(nn.Module):
    """Python looks at a tensor's value and chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        while h.norm() > 4.0:
            h = h * 0.5
        h = torch.relu(self.two(h)) if h.mean() > 0 else torch.tanh(h)
        return self.head(h) * h.abs().max().item()


@MODELS.case()
def branch_on_data() -> Made:
    return Branching(), (2 * torch.randn(4, 6),)


class Autocast(nn.Module):
    """Part of the model runs in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.one(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for _ in range(3):
                h = torch.tanh(self.two(h))
        return self.three(h.to(x.dtype))


@MODELS.case(dtypes=(torch.float32,))
def autocast_region() -> Made:
    return Autocast(), (torch.randn(4, 6),)
