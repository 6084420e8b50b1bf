"""Experiment ``agents``: a recurrent policy learns to act, by backprop and by Z-IL, from the same seeds.

The policy reads the last few observations one by one and answers once, at the end: many to one. It learns by REINFORCE.
If one bit of one weight differed, so would sooner or later an action, and from there on everything; so equal curves say
much. Nothing is said about how good the scores are.

Source: Williams, *Simple statistical gradient-following algorithms*, 1992.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph

from ..demo.compare import largest_difference
from .cell import Cell, Experiment, Found, Numbers, Settings, Tell, rows
from .environments import CARTPOLE, World, world

_SMALLEST = 64  # rows of a batch, which is filled up to a power of two: few shapes, few captures


@dataclass(frozen=True)
class Plan:
    """How agents learn in one world; all that their returns depend on.

    Attributes:
        world: ``"CartPole"`` or an Atari game.
        seed: of weights, actions and environments.
        updates: of the policy.
        episodes: played at a time, between two updates.
        longest: steps after which an episode is cut off.
        memory: observations that the policy reads.
        hidden: width of the policy.
        rate: of Adam.
        discount: of later rewards, per step.
    """

    world: str
    seed: int
    updates: int
    episodes: int
    longest: int
    memory: int = 4
    hidden: int = 64
    rate: float = 1e-2
    discount: float = 0.99


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


@dataclass(frozen=True)
class Life:
    """An agent's.

    Attributes:
        returns: sum of the rewards of every episode, in their order.
        policy: at the end; None: the agent acted at random.
    """

    returns: list[float]
    policy: Policy | None

    @property
    def last_quarter(self) -> float:
        """Mean return over the last quarter of the episodes, at least one."""
        return fmean(self.returns[-max(1, len(self.returns) // 4) :])


def live(plan: Plan, kind: str, tell: Tell) -> Life:
    """Play and learn from start to end.

    Args:
        plan: where, and for how long.
        kind: ``"BP"``, ``"Z-IL"``, ``"memoryless"`` (backprop, the last observation only) or ``"random"``.
        tell: how far it is.
    """
    worlds = [world(plan.world, 1000 * plan.seed + k, plan.longest) for k in range(plan.episodes)]
    memory = 1 if kind == "memoryless" else plan.memory
    torch.manual_seed(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    policy = None if kind == "random" else Policy(worlds[0].features, plan.hidden, worlds[0].actions)
    network = pcgraph.compile(policy) if policy is not None and kind == "Z-IL" else policy
    optimizer = None if policy is None else torch.optim.Adam(policy.parameters(), lr=plan.rate)
    returns: list[float] = []
    for update in range(1, plan.updates + 1):
        episodes = play(worlds, network, memory, generator)
        returns += [float(episode.rewards.sum()) for episode in episodes]
        if network is not None and optimizer is not None:
            _learn(network, optimizer, *batch(episodes, plan.discount))
        if update % max(1, plan.updates // 5) == 0:
            tell(f"{kind}: {update} of {plan.updates} updates, return {fmean(returns[-plan.episodes :]):.4g}")
    return Life(returns, policy)


def _learn(network: nn.Module, optimizer: torch.optim.Optimizer, seen: Tensor, taken: tuple[Tensor, Tensor]) -> None:
    if isinstance(network, pcgraph.PCNetwork):
        network.step(seen, taken, policy_loss, optimizer)
    else:
        policy_loss(network(seen), taken).backward()
        optimizer.step()
        optimizer.zero_grad()


def compare(bp: Life, z_il: Life) -> Numbers:
    """Whether two agents lived the same life: ``identical`` returns, and the ``largest_weight_difference``."""
    assert bp.policy is not None and z_il.policy is not None
    return {
        "identical": bp.returns == z_il.returns,
        "largest_weight_difference": largest_difference(z_il.policy.parameters(), bp.policy.parameters()),
    }


def measure(plan: Plan, tell: Tell) -> Numbers:
    """Four agents in one world.

    Returns:
        ``returns``: of backprop, per episode; ``returns_random`` and ``returns_memoryless``.
        ``identical``: whether the returns of Z-IL are the same, element for element.
        ``largest_weight_difference``: between backprop and Z-IL, at the end.
        ``bp``, ``zil``, ``random``, ``memoryless``: mean returns over the last quarter.
    """
    lives = {kind: live(plan, kind, tell) for kind in ("BP", "Z-IL", "memoryless", "random")}
    return {
        "returns": lives["BP"].returns,
        "returns_memoryless": lives["memoryless"].returns,
        "returns_random": lives["random"].returns,
        **compare(lives["BP"], lives["Z-IL"]),
        "episodes": len(lives["BP"].returns),
        "bp": lives["BP"].last_quarter,
        "zil": lives["Z-IL"].last_quarter,
        "random": lives["random"].last_quarter,
        "memoryless": lives["memoryless"].last_quarter,
    }


def plans(settings: Settings) -> list[Plan]:
    """Which worlds, and for how long."""
    cart = Plan(CARTPOLE, settings.seed, 150 if settings.full else 60, 8, 500)
    games = settings.games if settings.full else settings.games[:1]
    size = (200, 8, 5000) if settings.full else (4, 4, 1000)
    return [cart, *(Plan(game, settings.seed, *size, rate=1e-3) for game in games)]


def cells(settings: Settings) -> list[Cell]:
    """A cell per world."""

    def cell(plan: Plan) -> Cell:
        return Cell("agents", plan.world, lambda tell: measure(plan, tell), asdict(plan))

    return [cell(plan) for plan in plans(settings)]


def table(found: list[Found]) -> str:
    """Mean returns over the last quarter of the episodes."""
    columns = {
        "episodes": "episodes",
        "BP": "bp",
        "Z-IL": "zil",
        "memoryless": "memoryless",
        "random": "random",
        "identical curves": "identical",
        "largest difference of weights": "largest_weight_difference",
    }
    return rows(found, columns, "mean return, last quarter")
