"""REINFORCE for a recurrent policy that reads the last few observations and answers once, at the end.

Source: Williams, *Simple statistical gradient-following algorithms for connectionist reinforcement learning*, 1992.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .environments import World

_SMALLEST = 64  # rows of a batch, which is filled up to a power of two: few shapes, few captures


class Policy(nn.Module):
    """A tanh network over the last observations: [N, memory, features] -> logits [N, actions]."""

    def __init__(self, features: int, hidden: int, actions: int) -> None:
        super().__init__()
        self.see, self.keep = nn.Linear(features, hidden), nn.Linear(hidden, hidden, bias=False)
        self.act = nn.Linear(hidden, actions)

    def forward(self, observations: Tensor) -> Tensor:
        """The logits after the last observation."""
        first, *later = observations.unbind(1)
        h = torch.tanh(self.see(first))
        for one in later:
            h = torch.tanh(self.see(one) + self.keep(h))
        return self.act(h)


def policy_loss(logits: Tensor, taken: tuple[Tensor, Tensor]) -> Tensor:
    """REINFORCE: minus the log-probability of each action taken, int64 [N], weighted by its advantage, float32 [N]."""
    actions, advantages = taken
    return (F.cross_entropy(logits, actions, reduction="none") * advantages).sum()


@dataclass(frozen=True)
class Episode:
    """What happened in one.

    Attributes:
        seen: the last observations before each action, float32 [steps, memory, features].
        actions: int64 [steps].
        rewards: float64 [steps].
    """

    seen: Tensor
    actions: Tensor
    rewards: Tensor

    def to_go(self, discount: float) -> Tensor:
        """Discounted sums of the rewards from each step on, float64 [steps]."""
        sums, later = [], 0.0
        for reward in reversed(self.rewards.tolist()):
            later = reward + discount * later
            sums.append(later)
        return torch.tensor(sums[::-1], dtype=torch.float64)


@torch.no_grad()
def play(worlds: Sequence[World], policy: nn.Module | None, memory: int, generator: torch.Generator) -> list[Episode]:
    """An episode in each of some worlds, side by side, so that the policy is asked once for all that still go on.

    Args:
        worlds: of one kind.
        policy: gives logits; None: every action is as likely.
        memory: observations that it is given; those before the first one are zeros.
        generator: draws the actions.
    """
    blank = torch.zeros(memory - 1, worlds[0].features)
    recent = [torch.cat([blank, one.reset()[None]]) for one in worlds]
    steps: list[list[tuple[Tensor, int, float]]] = [[] for _ in worlds]
    going = list(range(len(worlds)))
    while going:
        seen = torch.stack([recent[k] for k in going])
        logits = torch.zeros(len(going), worlds[0].actions) if policy is None else policy(seen)
        drawn = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten().tolist()
        still = []
        for k, action in zip(going, drawn, strict=True):
            observation, reward, over = worlds[k].step(action)
            steps[k].append((recent[k], action, reward))
            recent[k] = torch.cat([recent[k][1:], observation[None]])
            if not over:
                still.append(k)
        going = still
    return [_episode(taken) for taken in steps]


def _episode(steps: list[tuple[Tensor, int, float]]) -> Episode:
    seen, actions, rewards = zip(*steps, strict=True)
    return Episode(torch.stack(seen), torch.tensor(actions), torch.tensor(rewards, dtype=torch.float64))


def batch(episodes: Sequence[Episode], discount: float) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Arguments of the policy and of its loss from some episodes, filled up with rows of no weight.

    The baseline is the mean over all steps; what is left is divided by its standard deviation, and by their number.
    """
    gains = torch.cat([episode.to_go(discount) for episode in episodes])
    count = len(gains)
    advantages = (gains - gains.mean()) / (gains.std(correction=0) + 1e-6) / count
    seen, actions = torch.cat([e.seen for e in episodes]), torch.cat([e.actions for e in episodes])
    missing = max(_SMALLEST, 1 << (count - 1).bit_length()) - count
    filled = F.pad(seen, (0, 0, 0, 0, 0, missing))
    return filled, (F.pad(actions, (0, missing)), F.pad(advantages.float(), (0, missing)))
