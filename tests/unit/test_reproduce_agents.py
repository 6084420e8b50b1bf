"""Agents that learn by backprop and by Z-IL: the same lives from the same seeds, and other lives from others."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pcgraph.reproduce import agents, environments
from pcgraph.reproduce.agents import Plan, compare, live, measure
from pcgraph.reproduce.cell import Found, NotRun, Settings
from pcgraph.reproduce.environments import CARTPOLE, World, world
from pcgraph.reproduce.reinforce import Episode, Policy, batch, play, policy_loss

needs_worlds = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gymnasium", "ale_py")),
    reason="needs the extra atari",
)
PLAN = Plan(CARTPOLE, seed=0, updates=4, episodes=2, longest=40, hidden=16)


def silent(text: str) -> None:
    pass


@needs_worlds
def test_identical_lives() -> None:
    numbers = measure(PLAN, silent)
    assert numbers["identical"] is True
    assert numbers["largest_weight_difference"] == 0.0
    assert numbers["returns"] == numbers["returns_zil"]
    assert numbers["bp"] == numbers["zil"]
    assert len(numbers["returns"]) == len(numbers["returns_random"]) == len(numbers["returns_memoryless"]) == 8
    assert numbers["returns"] != numbers["returns_random"]


@needs_worlds
def test_another_seed_is_another_life() -> None:
    bp, z_il = live(PLAN, "BP", silent), live(replace(PLAN, seed=1), "Z-IL", silent)
    numbers = compare(bp, z_il)
    assert numbers["identical"] is False
    assert numbers["largest_weight_difference"] > 1e-3


@needs_worlds
def test_weights_move() -> None:
    start, later = live(replace(PLAN, updates=1), "Z-IL", silent), live(PLAN, "Z-IL", silent)
    assert compare(start, later)["largest_weight_difference"] > 0


@needs_worlds
def test_velocities_are_hidden() -> None:
    cart = world(CARTPOLE, 3, 40)
    seen = cart.reset()
    full = cart.env.unwrapped.state
    assert seen.tolist() == pytest.approx([10 * full[0], 10 * full[2]])
    assert (cart.features, cart.actions) == (2, 2)


@needs_worlds
def test_atari_by_its_memory() -> None:
    plan = Plan("Pong", seed=0, updates=2, episodes=1, longest=30, hidden=8)
    lives = [live(plan, kind, silent) for kind in ("BP", "Z-IL")]
    assert compare(*lives) == {"identical": True, "largest_weight_difference": 0.0}
    game = world("Pong", 0, 30)
    seen = game.reset()
    assert seen.shape == (128,)
    assert -1 <= seen.min() < seen.max() <= 1


@needs_worlds
def test_no_such_game() -> None:
    with pytest.raises(NotRun, match="there is no Atari game 'Pnog'"):
        world("Pnog", 0, 30)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NotRun, match=r"install pcgraph\[atari\]"):
        agents.cells(Settings())[0].measure(silent)


class Counter(World):
    """Shows how many steps it has made; over after `longest`."""

    def __init__(self, longest: int) -> None:
        super().__init__(None, 1, 0)
        self.longest, self.steps = longest, 0

    @property
    def actions(self) -> int:
        return 3

    def reset(self) -> torch.Tensor:
        self.steps = 1
        return torch.tensor([1.0])

    def step(self, action: int) -> tuple[torch.Tensor, float, bool]:
        self.steps += 1
        return torch.tensor([float(self.steps)]), float(action), self.steps > self.longest


def test_play_remembers_the_last_observations() -> None:
    short, long = play([Counter(2), Counter(5)], Policy(1, 4, 3), 3, torch.Generator().manual_seed(0))
    assert short.seen.squeeze(2).tolist() == [[0, 0, 1], [0, 1, 2]]
    assert long.seen.squeeze(2).tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert long.rewards.tolist() == long.actions.tolist()


def test_batch_against_a_loop() -> None:
    rewards = [[1.0, 0.0, 2.0], [5.0]]
    episodes = [
        Episode(torch.randn(len(r), 4, 2), torch.arange(len(r)), torch.tensor(r, dtype=torch.float64)) for r in rewards
    ]
    seen, (actions, advantages) = batch(episodes, 0.5)
    gains = np.array([1 + 0.5 * 0 + 0.25 * 2, 0 + 0.5 * 2, 2, 5])
    expected = (gains - gains.mean()) / (gains.std() + 1e-6) / 4
    assert advantages[:4].tolist() == pytest.approx(expected.tolist(), rel=1e-6)  # float32 against float64
    assert actions[:4].tolist() == [0, 1, 2, 0]
    assert seen.shape == (64, 4, 2)
    assert not seen[4:].any() and not advantages[4:].any()


def test_rows_that_fill_up_change_nothing() -> None:
    episode = Episode(torch.randn(5, 4, 2), torch.tensor([0, 1, 1, 0, 1]), torch.ones(5, dtype=torch.float64))
    seen, (actions, advantages) = batch([episode], 0.9)
    logits = Policy(2, 8, 2)(seen)
    whole = policy_loss(logits, (actions, advantages))
    alone = policy_loss(logits[:5], (actions[:5], advantages[:5]))
    torch.testing.assert_close(whole, alone)  # sums of another length round differently


def test_cells() -> None:
    quick, full = agents.cells(Settings()), agents.cells(Settings(full=True))
    assert [cell.name for cell in quick] == [cell.name for cell in full] == ["CartPole", "Pong", "Breakout", "Boxing"]
    assert not {cell.key for cell in quick} & {cell.key for cell in full}


def test_table_and_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    curves: dict[str, Any] = {f"returns{kind}": [1.0, 2.0] for kind in ("", "_zil", "_memoryless", "_random")}
    numbers = {**curves, "identical": True, "largest_weight_difference": 0.0, "episodes": 2, "bp": 1.5, "zil": 1.5}
    found = [Found("", "agents", "CartPole", numbers), Found("", "agents", "Pong", {}, not_run=environments.INSTALL)]
    text = agents.table(found)
    assert "| CartPole | 2 | 1.5 | 1.5 |" in text
    assert "not run: install pcgraph[atari]" in text
    assert agents.draw(found, tmp_path) == ["agents.png"]
    assert (tmp_path / "agents.png").stat().st_size > 1000
    assert agents.draw(found[1:], tmp_path) == []
