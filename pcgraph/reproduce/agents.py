"""Experiment ``agents``: a recurrent policy learns to act, by backprop and by Z-IL, from the same seeds.

The policy reads the last few observations one by one and answers once, at the end: many to one. It learns by REINFORCE.
Where one bit of one weight differs, an action does sooner or later, and from there on everything: a weight of the start
moved by one unit in the last place changes the returns on CartPole after some 250 episodes. In the few episodes of a
quick run on a game it does not, so there the weights say more than the curves. No score is claimed to be good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph

from ..demo.compare import largest_difference
from .cell import Cell, Experiment, Found, Numbers, Settings, Tell, rows
from .environments import CARTPOLE, world
from .pictures import panels
from .reinforce import Policy, batch, play, policy_loss


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
    discount: float = 0.97


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
    """Whether two agents lived the same life: ``identical`` returns and weights; the ``largest_weight_difference``."""
    assert bp.policy is not None and z_il.policy is not None
    mine, theirs = list(z_il.policy.parameters()), list(bp.policy.parameters())
    same_weights = all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    return {
        "identical": same_weights and bp.returns == z_il.returns,
        "largest_weight_difference": largest_difference(mine, theirs),
    }


def measure(plan: Plan, tell: Tell) -> Numbers:
    """Four agents in one world.

    Returns:
        ``returns``: of backprop, per episode; ``returns_zil``, ``returns_memoryless`` and ``returns_random``.
        ``identical``: whether the returns of Z-IL are the same, element for element, and its weights, to the bit.
        ``largest_weight_difference``: between backprop and Z-IL, at the end.
        ``bp``, ``zil``, ``random``, ``memoryless``: mean returns over the last quarter.
    """
    lives = {kind: live(plan, kind, tell) for kind in ("BP", "Z-IL", "memoryless", "random")}
    return {
        "returns": lives["BP"].returns,
        "returns_zil": lives["Z-IL"].returns,
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
    size = (200, 8, 5000) if settings.full else (3, 2, 1000)
    return [cart, *(Plan(game, settings.seed, *size, rate=1e-3, discount=0.99) for game in settings.games)]


def cells(settings: Settings) -> list[Cell]:
    """A cell per world."""

    def cell(plan: Plan) -> Cell:
        return Cell("agents", plan.world, lambda tell: measure(plan, tell), asdict(plan), ("gymnasium", "ale-py"))

    return [cell(plan) for plan in plans(settings)]


ABOUT = """\
A policy reads the last four observations one by one and answers after the last; it learns by REINFORCE with Adam, and
everything is drawn from one seed. CartPole hides its velocities; Atari shows the 128 bytes of its memory. *Memoryless*
reads the latest observation only, *random* none. Returns are means over the last quarter of the episodes. *Identical*:
the return of every episode is the same by backprop and by Z-IL, and so are all weights at the end, to the bit. That a
return is good, or better than another, is not claimed."""


def table(found: list[Found]) -> str:
    """Mean returns over the last quarter of the episodes."""
    columns = {
        "episodes": "episodes",
        "BP": "bp",
        "Z-IL": "zil",
        "memoryless": "memoryless",
        "random": "random",
        "identical": "identical",
        "largest difference of weights": "largest_weight_difference",
    }
    return f"{ABOUT}\n\n{rows(found, columns, 'world')}"


def draw(found: list[Found], folder: Path) -> list[str]:
    """Returns, averaged over ten episodes: backprop a wide line, Z-IL a thin one on top of it."""

    def lines(axes: Any, one: dict[str, Any]) -> None:
        axes.plot(smooth(one["returns"]), linewidth=4, alpha=0.4, label="BP")
        axes.plot(smooth(one["returns_zil"]), color="black", linewidth=1, label="Z-IL")
        axes.plot(smooth(one["returns_memoryless"]), linewidth=1, label="memoryless")
        axes.plot(smooth(one["returns_random"]), linewidth=1, label="random")

    return panels(found, folder / "agents.png", lines, xlabel="episodes", ylabel="return")


def smooth(returns: Sequence[float], window: int = 10) -> list[float]:
    """Means over the latest `window` numbers.

    >>> smooth([1.0, 2.0, 3.0, 4.0], 2)
    [1.0, 1.5, 2.5, 3.5]
    """
    return [fmean(returns[max(0, k - window + 1) : k + 1]) for k in range(len(returns))]


EXPERIMENT = Experiment(
    "agents",
    "A recurrent policy learns to act, by backprop and by Z-IL, from the same seeds",
    "beyond the paper: reinforcement learning, on the many-to-one networks that Z-IL, arXiv 2103.03725, covers",
    cells,
    table,
    draw,
)
