"""Time per weight update: backprop, Z-IL and inference learning, side by side on the same weights and batch."""

from __future__ import annotations

import copy
import functools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph

from ..bench.nets import GPT, HandLSTM, alexnet, resnet18
from ..measure import alternate, ratio
from .cell import Cell, Experiment, Found, Numbers, Settings, Tell, rows
from .divergence import distance, gradients
from .nets import ManyToOne, mlp, squared

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Timed:
    """What is timed.

    Attributes:
        make: builds the network.
        x: makes a batch.
        y: makes its targets.
        loss: of both.
        rounds: how often each is timed, quick and full.
        il: time inference learning as well.
    """

    make: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    y: Callable[[], Tensor]
    loss: Loss = squared
    rounds: tuple[int, int] = (30, 200)
    il: bool = True


def _normal(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape)


def _classes(count: int, *shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(0, count, shape)


def _words(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(0, 1), target.flatten())


PAPER = {
    **{
        f"MLP, {n} hidden layer{'s' * (n > 1)}": Timed(
            functools.partial(mlp, n, 128, 784), _normal(20, 784), _normal(20, 10), rounds=(100, 500)
        )
        for n in (1, 2, 4)
    },
    "RNN, 32 time steps": Timed(lambda: ManyToOne(32, 64), _normal(20, 32, 32), _normal(20, 10), rounds=(40, 200)),
    "AlexNet": Timed(alexnet, _normal(20, 3, 32, 32), _normal(20, 10), rounds=(7, 40)),
}
BEYOND = {
    "ResNet-18": Timed(resnet18, _normal(4, 3, 32, 32), _classes(10, 4), F.cross_entropy, (5, 30), False),
    "transformer, 4 layers": Timed(GPT, _classes(256, 4, 64), _classes(256, 4, 64), _words, (10, 60), False),
    "LSTM, 32 time steps": Timed(HandLSTM, _normal(20, 32, 32), _normal(20, 10), squared, (15, 100), False),
}


def _measure(timed: Timed, settings: Settings, tell: Tell) -> Numbers:
    torch.manual_seed(settings.seed)
    model, x, y, loss = timed.make(), timed.x(), timed.y(), timed.loss
    twin = copy.deepcopy(model)
    network = pcgraph.compile(twin)
    loss(model(x), y).backward()
    wanted = gradients(model)
    tell("compiling")
    loss(network(x), y).backward()
    found = gradients(twin)
    numbers: dict[str, Any] = {"distance": distance(found, wanted)}
    numbers["equal"] = set(found) == set(wanted) and all(torch.equal(found[n], g) for n, g in wanted.items())

    def backprop() -> None:
        model.zero_grad()
        loss(model(x), y).backward()

    def zil() -> None:
        twin.zero_grad()
        loss(network(x), y).backward()

    def step() -> None:
        twin.zero_grad()
        network.step(x, y, loss)

    def inference() -> None:
        twin.zero_grad()
        network.learn(x, y, loss, pcgraph.IL(gamma=0.1, steps=settings.il_steps))

    steps: dict[str, Callable[[], object]] = {"bp": backprop, "again": backprop, "zil": zil, "step": step}
    if timed.il:
        steps["il"] = inference
    tell("timing")
    rounds = timed.rounds[settings.full]
    seconds = alternate(steps, rounds, seed=settings.seed)
    numbers |= {f"{name}_ms": 1000 * statistics.median(seconds[name]) for name in steps}
    numbers |= {f"{name}_ratio": ratio(seconds, name, "bp") for name in steps if name != "bp"}
    numbers["rounds"] = rounds
    if timed.il:
        numbers["T"] = settings.il_steps
    return numbers


def cells(which: dict[str, Timed], experiment: str, settings: Settings) -> list[Cell]:
    """A cell per network."""
    about = {"seed": settings.seed, "full": settings.full, "T": settings.il_steps}
    return [
        Cell(experiment, name, functools.partial(_measure, timed, settings), about) for name, timed in which.items()
    ]


ABOUT = """\
One update without the optimizer, on the CPU: medians of rounds in which each runs once, in an order shuffled anew.
The ratios are to backprop in the same round; *again* is backprop once more, and says how much a ratio means. *Z-IL*
is `loss(network(x), y).backward()`, *step* the same as one call, IL is inference learning by `network.learn`, compiled
as well, with gamma = 0.1. *Equal*: Z-IL's gradients are backprop's to the bit."""


def table(found: list[Found]) -> str:
    """A row per network."""
    columns = {"BP, ms": "bp_ms", "Z-IL, ms": "zil_ms", "IL, ms": "il_ms", "again / BP": "again_ratio"}
    columns |= {"Z-IL / BP": "zil_ratio", "step / BP": "step_ratio", "IL / BP": "il_ratio", "T of IL": "T"}
    columns |= {"rounds": "rounds", "distance": "distance", "equal": "equal"}
    return ABOUT + "\n\n" + rows(found, columns, "network")


def draw(file: str, found: list[Found], folder: Path) -> list[str]:
    """Ratios to backprop."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    titles = {"again": "BP again", "zil": "Z-IL", "step": "Z-IL in one call", "il": "IL"}
    titles = {name: title for name, title in titles.items() if any(f"{name}_ratio" in item.numbers for item in found)}
    for k, (name, title) in enumerate(titles.items()):
        values = [item.numbers.get(f"{name}_ratio", math.nan) for item in found]
        ax.bar([place + (k - 1.5) * 0.2 for place in range(len(found))], values, 0.2, label=title)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_xticks(range(len(found)), [item.name for item in found], rotation=15, ha="right")
    ax.set_ylabel("time of an update / backprop's")
    figure.legend(loc="outside upper center", ncols=len(titles))
    figure.savefig(folder / file)
    return [file]


EXPERIMENT = Experiment(
    "timing",
    "Time per weight update",
    "arXiv 2103.03725: running time of a weight update",
    functools.partial(cells, PAPER, "timing"),
    table,
    functools.partial(draw, "timing.svg"),
)
MORE = Experiment(
    "beyond",
    "Beyond the paper: residual, attention and gated networks",
    "as in Salvatori et al., Reverse Differentiation via Predictive Coding, AAAI 2022",
    functools.partial(cells, BEYOND, "beyond"),
    table,
    functools.partial(draw, "beyond.svg"),
)
