"""In-place operations: residual sums, views, slices, buffers and preallocated results."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import Made, Registry
from .operations import between

MODELS = Registry()


@MODELS.case()
def add_to_a_column() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        x[:, 0] += 1
        x[:, 1:3] *= 0.5
        x[:, -1] += w.sum()
        return x

    return between(function)


@MODELS.case()
def assign_slices() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        out = torch.zeros(x.shape[0], 8, dtype=x.dtype)
        out[:, :6] = x
        out[:, 6] = x[:, 0] * w[0]
        out[0] = 0.5
        out[..., 1::3] = x.sin()[:, ::3].sum(1, keepdim=True)
        return out

    return between(function)


@MODELS.case()
def mutated_view_then_base() -> Made:
    """A view is changed; its base, read later, sees the change, and so does a second view."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        base = x * 2
        left, other = base[:, :3], base.view(-1, 2, 3)
        left.mul_(0.3).add_(w[:3])
        return base + other.flip(1).flatten(1)

    return between(function)


@MODELS.case()
def mutated_base_then_view() -> Made:
    """A view taken before its base is changed reads the changed values."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        base = x + 1
        view = base.t()
        before = base.clone()
        base += w
        return view.t() * before

    return between(function)


@MODELS.case()
def view_of_a_view() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        base = x.clone()
        base.view(-1, 2, 3)[:, 0].unsqueeze(1)[:, 0, 1:].add_(w[:2])
        base.transpose(0, 1)[3].sub_(0.5)
        return base

    return between(function)


@MODELS.case()
def chain_of_inplace_operations() -> Made:
    return between(lambda x, w: (x * 1).add_(w).mul_(0.7).sub_(0.1).div_(1.5).clamp_(-1, 1).neg_().add_(x).tanh_())


@MODELS.case()
def functional_inplace() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        y = F.relu(x + w, inplace=True)
        z = torch.relu_(x - w)
        return F.leaky_relu_(y * 2 - 1, 0.2) + F.elu(z - 0.2, inplace=True)

    return between(function)


@MODELS.case()
def masked_writes() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        y = x.clone()
        y[x > 0.5] = 0.0
        y.masked_fill_(x < -0.5, 0.25)
        z = x * w
        z[:, [0, 3]] = y[:, [3, 0]]
        return y + z

    return between(function)


@MODELS.case()
def indexed_writes() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y.index_add_(1, torch.tensor([0, 0, 5, 2, 1, 1]), x)
        y.scatter_(1, torch.tensor([[3]]).expand(x.shape[0], 1), w[:1].expand(x.shape[0], 1))
        y.index_copy_(1, torch.tensor([4]), x[:, :1])
        return y

    return between(function)


@MODELS.case()
def copies_and_fills() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        y = torch.empty_like(x).copy_(x)
        y[:, :2].fill_(0.3)
        y[:, 2:4].zero_()
        z = x.new_empty(x.shape)
        z.copy_(w)
        return torch.cat([y, z * x], dim=1)

    return between(function)


@MODELS.case()
def shapes_changed_in_place() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        y = x * 1
        y.unsqueeze_(1).squeeze_(1).t_()
        return y.t() * w

    return between(function)


@MODELS.case()
def running_sum() -> Made:
    """One accumulator, changed in a Python loop and read in between."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        total, seen = torch.zeros(x.shape[0], dtype=x.dtype), []
        for column in x.unbind(1):
            total += column * w.mean()
            seen.append(torch.tanh(total))
        return torch.stack(seen, 1)

    return between(function)


class InPlaceResidual(nn.Module):
    """`y = block(x); y += x`, four times."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            y = block(torch.sigmoid(x))
            y += x
            x = y
        return x


@MODELS.case()
def inplace_residual() -> Made:
    return InPlaceResidual(), (torch.randn(4, 6),)


class Ema(nn.Module):
    """Running mean and a step counter, moved under no_grad in training, used by the prediction."""

    mean: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.layer(x))
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(h.mean(0), alpha=0.1)
                self.steps += 1
        return self.head(h - self.mean)


@MODELS.case()
def running_mean_buffer() -> Made:
    return Ema(), (torch.randn(4, 6),)


class Reassigned(nn.Module):
    """The buffer is replaced by a new tensor at every call."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 5)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.layer(x))
        self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h - self.mean


@MODELS.case()
def reassigned_buffer() -> Made:
    return Reassigned(), (torch.randn(4, 6),)


class Momentum(nn.Module):
    """A teacher whose weights follow the student's, written under no_grad at every call."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.student, self.teacher = make(), make()
        self.teacher.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
            goal = self.teacher(x)
        return self.student(x) - goal


@MODELS.case()
def momentum_teacher() -> Made:
    return Momentum(lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))), (torch.randn(4, 6),)


class Queue(nn.Module):
    """A memory of past features, written at a pointer that is read as a Python number."""

    memory: Tensor
    pointer: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("memory", torch.randn(9, 4))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        h = F.normalize(self.layer(x), dim=1)
        logits = h @ self.memory.clone().T
        at = int(self.pointer)
        with torch.no_grad():
            rows = torch.arange(at, at + x.shape[0]) % 9
            self.memory[rows] = h
            self.pointer.fill_((at + x.shape[0]) % 9)
        return logits


@MODELS.case()
def memory_queue() -> Made:
    return Queue(), (torch.randn(4, 6),)


class WritesInput(nn.Module):
    """Changes its argument in place, under the caller's eyes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x.clamp_(-1, 1)
        return self.layer(x)


@MODELS.case()
def input_changed_in_place() -> Made:
    return WritesInput(), (2 * torch.randn(4, 6),)


@MODELS.case()
def detached_alias_of_a_written_base() -> Made:
    """A detached alias sees later writes to its base, and stays detached."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        base = x + w
        alias, row = base.detach(), base.detach()[:, :3]
        base.mul_(2).add_(x)
        return torch.cat([alias * w, row * w[:3], base.tanh()], dim=1)

    return between(function)
