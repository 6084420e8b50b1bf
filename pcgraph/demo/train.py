"""Train one network with several learners in lockstep: same start, same batches, same random numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph

from .data import Images
from .recipes import Recipe
from .unrolled import unrolled

WARM_UP = 2  # first steps, with compilation and allocation in them, are left out of the times


@dataclass
class Learner:
    """One way to train, with a model, an optimizer and a random state of its own.

    Attributes:
        name: ``backprop``, ``z-il`` or ``fused`` (backprop through the fused recurrent kernel).
        network: what is called: the plain module, or its `PCNetwork`.
        model: the plain module that holds the weights.
        optimizer: over the model's parameters.
        context: entered around forward and backward.
        random_state: of torch's CPU generator, after the last step.
        seconds: duration of every step: forward, loss, backward, optimizer.
        loss: of the last step.
    """

    name: str
    network: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    random_state: Tensor
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    seconds: list[float] = field(default_factory=list)
    loss: float = float("nan")

    def step(self, x: Tensor, y: Tensor) -> None:
        """One update on images [N, 1, side, side] of classes [N]."""
        torch.set_rng_state(self.random_state)
        started = time.perf_counter()
        self.optimizer.zero_grad()
        with self.context():
            loss = F.cross_entropy(self.network(x), y)
            loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - started)
        self.loss = loss.item()
        self.random_state = torch.get_rng_state()

    def milliseconds(self) -> float:
        """Median duration of a step, the first few left out where there are more."""
        return 1000 * median(self.seconds[WARM_UP:] or self.seconds)


@dataclass(frozen=True)
class Trained:
    """The learners after training, and T of the network that Z-IL ran on."""

    learners: dict[str, Learner]
    inference_steps: int
    steps: int


def learners(recipe: Recipe, side: int, seed: int) -> dict[str, Learner]:
    """Backprop, Z-IL and, for a recurrent network, backprop through the fused kernel, all from one start."""
    torch.manual_seed(seed)
    model = recipe.build(side)
    random_state = torch.get_rng_state()

    def learner(name: str, compiled: bool = False, **more: Any) -> Learner:
        mine = deepcopy(model)
        network: nn.Module = pcgraph.compile(mine) if compiled else mine
        return Learner(name, network, mine, recipe.optimizer(mine.parameters()), random_state, **more)

    made = [learner("backprop", context=unrolled if recipe.recurrent else nullcontext), learner("z-il", compiled=True)]
    if recipe.recurrent:
        made.append(learner("fused"))
    return {one.name: one for one in made}


def train(
    recipe: Recipe,
    images: Images,
    *,
    seed: int,
    epochs: int,
    batch: int,
    limit: int | None,
    advance: Callable[[], None],
) -> Trained:
    """Train all learners side by side; who goes first changes with every batch, so that times compare fairly.

    Args:
        recipe: what to train.
        images: the data; the last, smaller batch of an epoch is left out.
        seed: of weights, batches and random numbers.
        epochs: over the training images.
        batch: images per step.
        limit: stop after that many steps.
        advance: called after every step, for a progress bar.
    """
    table = learners(recipe, images.side, seed)
    order = list(table.values())
    steps = 0
    for rows in batches(len(images.train_y), epochs, batch, seed, limit):
        x, y = images.train_x[rows], images.train_y[rows]
        for one in order:
            one.step(x, y)
        order.append(order.pop(0))
        steps += 1
        advance()
    network = table["z-il"].network
    assert isinstance(network, pcgraph.PCNetwork)
    return Trained(table, network.graph.steps, steps)


def batches(size: int, epochs: int, batch: int, seed: int, limit: int | None) -> Iterator[Tensor]:
    """Row numbers [batch] of each step: every epoch in a new seeded order."""
    generator = torch.Generator().manual_seed(seed)
    done = 0
    for _ in range(epochs):
        order = torch.randperm(size, generator=generator)
        for start in range(0, size - batch + 1, batch):
            if done == limit:
                return
            yield order[start : start + batch]
            done += 1


def accuracy(network: nn.Module, x: Tensor, y: Tensor, batch: int = 1000) -> float:
    """Share of images [N, 1, side, side] that are given their class [N]; leaves the network in train mode."""
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(some).argmax(1) == classes).sum())
            for some, classes in zip(x.split(batch), y.split(batch), strict=True)
        )
    network.train()
    return right / len(y)
