"""Worlds for the agents: CartPole without its velocities, and Atari games by their memory."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cell import NotRun

INSTALL = "install pcgraph[atari]"
CARTPOLE = "CartPole"
_SEEN = [0, 2]  # of CartPole's four numbers: the place of the cart and the angle of the pole
_SCALE = 10.0  # these are small before the episode is over


@dataclass
class World:
    """An environment of gymnasium's. The seed is given to the first episode; those after it go on from there.

    Attributes:
        env: of gymnasium.
        features: numbers in an observation.
        seed: of the environment; None once it is in use.
    """

    env: Any
    features: int
    seed: int | None

    @property
    def actions(self) -> int:
        """To choose from."""
        return int(self.env.action_space.n)

    def reset(self) -> Tensor:
        """Begin an episode; the first observation, float32 [features]."""
        observation, _ = self.env.reset(seed=self.seed)
        self.seed = None
        return self.seen(observation)

    def step(self, action: int) -> tuple[Tensor, float, bool]:
        """Act: the next observation, the reward, and whether the episode is over."""
        observation, reward, ended, cut, _ = self.env.step(action)
        return self.seen(observation), float(reward), bool(ended or cut)

    def seen(self, observation: Any) -> Tensor:
        """What the agent sees of an observation."""
        raise NotImplementedError


class CartPole(World):
    """The place of the cart and the angle of the pole; the velocities are hidden."""

    def seen(self, observation: Any) -> Tensor:
        """Two numbers."""
        return torch.from_numpy(np.asarray(observation, np.float32)[_SEEN] * np.float32(_SCALE))


class Atari(World):
    """The 128 bytes of memory of the console, from -1 to 1."""

    def seen(self, observation: Any) -> Tensor:
        """The bytes as numbers."""
        return torch.from_numpy(np.asarray(observation, np.float32) / np.float32(127.5) - np.float32(1))


def world(name: str, seed: int, longest: int) -> World:
    """CartPole-v1, or an Atari game: ALE's fifth version, four frames an action, a quarter of the actions repeated.

    Args:
        name: ``"CartPole"`` or a game such as ``"Pong"``.
        seed: of the environment.
        longest: steps after which an episode is cut off.

    Raises:
        NotRun: gymnasium or ale-py is not installed, or there is no such game.

    Source: Machado et al., *Revisiting the Arcade Learning Environment*, arXiv 1709.06009.
    """
    if any(importlib.util.find_spec(package) is None for package in ("gymnasium", "ale_py")):
        raise NotRun(INSTALL)
    import gymnasium

    if name == CARTPOLE:
        return CartPole(gymnasium.make("CartPole-v1", max_episode_steps=longest), len(_SEEN), seed)
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)
    try:
        env = gymnasium.make(f"ALE/{name}-v5", obs_type="ram", max_episode_steps=longest)
    except gymnasium.error.Error as error:
        raise NotRun(f"there is no Atari game {name!r}; ALE spells them like Pong") from error
    return Atari(env, 128, seed)
