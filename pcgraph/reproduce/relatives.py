"""Z-IL's relatives on real images: how well, and how fast, each rule trains the same network."""

from __future__ import annotations

import copy
import functools
import statistics
import time
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph

from .cell import Cell, Experiment, Found, Numbers, Settings, Tell, rows
from .data import Split, fashion_mnist
from .nets import mlp, residual, squared

BATCH = 64
BESIDE = 3  # a step of plain backprop is timed beside every so many


@dataclass(frozen=True)
class Course:
    """How a network is trained.

    Attributes:
        rule: None is plain backprop, without pcgraph.
        lr: of Adam.
        net: of `NETS`.
        scaled: initialise by muPC, and learn at its rates, which fall to 0 in equal steps.
        steps: quick and full.
    """

    rule: pcgraph.Rule | None
    lr: float = 0.001
    net: str = "MLP"
    scaled: bool = False
    steps: tuple[int, int] = (300, 9380)


NETS = {
    "MLP": functools.partial(mlp, 3, 128, 784),
    "20 blocks": functools.partial(residual, 20, 128, 784),
    "100 blocks": functools.partial(residual, 100, 64, 784),
}
RULES = {
    "backprop": Course(None),
    "Z-IL": Course(pcgraph.ZIL()),
    "IL, gamma = 0.1, T = 20": Course(pcgraph.IL(gamma=0.1, steps=20)),
    "FixedPrediction, gamma = 0.5, T = 20": Course(pcgraph.FixedPrediction(gamma=0.5, steps=20)),
    "ErrorPC, gamma = 0.05, T = 10": Course(pcgraph.ErrorPC(gamma=0.05, steps=10)),
    "IncrementalPC, gamma = 0.1, T = 5": Course(pcgraph.IncrementalPC(gamma=0.1, steps=5), steps=(150, 9380)),
}
DEEP = {  # rates: of those tried the best on 10,000 training images that were held back
    "20 residual blocks, backprop": Course(None, 0.1, "20 blocks", True, (300, 4690)),
    "20 residual blocks, ErrorPC, gamma = 0.01, T = 5": Course(
        pcgraph.ErrorPC(gamma=0.01, steps=5), 0.1, "20 blocks", True, (300, 4690)
    ),
    "20 residual blocks, ErrorPC, gamma = 0.02, T = 10": Course(
        pcgraph.ErrorPC(gamma=0.02, steps=10), 0.1, "20 blocks", True, (300, 4690)
    ),
    "100 residual blocks, backprop": Course(None, 0.03, "100 blocks", True, (60, 938)),
    "100 residual blocks, ErrorPC, gamma = 0.01, T = 5": Course(
        pcgraph.ErrorPC(gamma=0.01, steps=5), 0.03, "100 blocks", True, (60, 938)
    ),
    "100 residual blocks, IL, gamma = 0.4, T = 100": Course(
        pcgraph.IL(gamma=0.4, steps=100), 0.1, "100 blocks", True, (30, 938)
    ),
}


def batches(count: int, size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Indices of `steps` batches, in an order that is shuffled anew when all have been seen."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(count, generator=generator)
        batch, order = order[:size], order[size:]
        yield batch


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of the images whose largest output is their class."""
    with torch.no_grad():
        right = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    return right / len(y)


def _train(course: Course, settings: Settings, tell: Tell) -> Numbers:
    data: Split = fashion_mnist(settings.data)
    train, test = data.train_x.flatten(1), data.test_x.flatten(1)
    torch.manual_seed(settings.seed)
    model = NETS[course.net]()
    groups = pcgraph.mupc(model, train[:BATCH], lr=course.lr) if course.scaled else model.parameters()
    learner, plain = Learner(model, groups, course), plain_twin(model)
    steps = course.steps[settings.full]
    rates = torch.optim.lr_scheduler.LambdaLR(learner.optimizer, lambda k: 1 - k / steps if course.scaled else 1)
    curve, seconds, ratios = [], [], []
    for k, batch in enumerate(batches(len(train), BATCH, steps, settings.seed), 1):
        x, y = train[batch], data.train_y[batch]
        seconds.append(_seconds(learner, x, y))
        if k % BESIDE == 0:
            ratios.append(seconds[-1] / _seconds(plain, x, y))
        rates.step()
        if k % max(1, steps // 10) == 0:
            curve.append([k, accuracy(model, test, data.test_y)])
            tell(f"{k:,} of {steps:,} steps, accuracy {curve[-1][1]:.3f}")
    final = accuracy(model, test, data.test_y)
    times = {"ms": 1000 * statistics.median(seconds), "ratio": statistics.median(ratios)}
    return {"accuracy": final, **times, "steps": steps, "curve": curve, **learner.inference(x, y)}


@dataclass
class Learner:
    """One way to train a model.

    Attributes:
        model: whose weights learn.
        groups: of its parameters, for Adam.
        course: says how.
    """

    model: nn.Module
    groups: InitVar[Any]
    course: Course

    def __post_init__(self, groups: Any) -> None:
        self.optimizer = torch.optim.Adam(groups, lr=self.course.lr)
        self.network = None if self.course.rule is None else pcgraph.compile(self.model)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Learn from a batch [batch, inputs] of classes [batch]."""
        if self.network is None or self.course.rule is None:
            squared(self.model(x), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        else:
            self.network.learn(x, y, squared, self.course.rule, self.optimizer)

    def inference(self, x: Tensor, y: Tensor) -> Numbers:
        """What inference does to a batch, as far as it can be known: nothing of backprop and of rules without a T.

        Returns:
            ``removed``: share of the energy that it removes; the loss is the energy at its start.
            ``reached``: share of the weight matrices that have a gradient at its end.
            ``cosine``: of the gradients of all weight matrices with backprop's, the smallest.
        """
        if self.network is None or not isinstance(self.course.rule, pcgraph.IL | pcgraph.ErrorPC):
            return {}
        found = self.network.infer(x, y, squared, self.course.rule)
        energy = sum(error.square().sum().item() / 2 for error in found.errors.values())
        named = {name: weight for name, weight in self.model.named_parameters() if weight.dim() > 1}
        wanted = torch.autograd.grad(squared(self.model(x), y), list(named.values()))
        pairs = [(found.gradients[name].flatten(), g.flatten()) for name, g in zip(named, wanted, strict=True)]
        return {
            "removed": 1 - energy / found.losses[0],
            "reached": statistics.fmean(bool(gradient.any()) for gradient, _ in pairs),
            "cosine": min(F.cosine_similarity(*pair, dim=0).item() for pair in pairs),
        }


def plain_twin(model: nn.Module) -> Learner:
    """A copy of a model that learns by backprop, to be timed beside it."""
    twin = copy.deepcopy(model)
    return Learner(twin, twin.parameters(), Course(None))


def _seconds(learner: Learner, x: Tensor, y: Tensor) -> float:
    start = time.perf_counter()
    learner.step(x, y)
    return time.perf_counter() - start


def cells(which: dict[str, Course], experiment: str, settings: Settings) -> list[Cell]:
    """A cell per rule."""
    found = []
    for name, course in which.items():
        about = {"seed": settings.seed, "course": repr(course), "steps": course.steps[settings.full], **settings.source}
        if course.scaled:
            about["rates"] = "to 0"
        found.append(Cell(experiment, name, functools.partial(_train, course, settings), about))
    return found


COLUMNS = {"accuracy": "accuracy", "ms a step": "ms", "step / BP": "ratio", "steps": "steps"}
INSIDE = {"energy removed": "removed", "weights reached": "reached", "smallest cosine": "cosine"}


def table(about: str, columns: dict[str, str], found: list[Found]) -> str:
    """A row per rule."""
    return f"{about}\n\n{rows(found, columns, 'rule')}"


def draw(file: str, found: list[Found], folder: Path) -> list[str]:
    """Accuracy over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    for item in found:
        ax.plot(
            [k for k, _ in item.numbers["curve"]], [100 * value for _, value in item.numbers["curve"]], label=item.name
        )
    ax.set_xlabel("training steps")
    ax.set_ylabel("test accuracy, %")
    ax.legend(fontsize="small")
    figure.savefig(folder / file)
    return [file]


ABOUT_DEEP = f"""\
FashionMNIST, squared loss, Adam, batches of {BATCH}; all are initialised by muPC and learn at its rates, which fall to
0 in equal steps; the same weights and batches for all of a depth. The last three columns are about the trained network
and its last batch. *Energy removed*: by inference, as a share of the loss, which is all there is at its start; the less
it is, the nearer ErrorPC comes to backprop. *Weights reached*: weight matrices with a gradient at T; under IL an error
moves one level a step, and fades. *Smallest cosine*: of any weight matrix's gradient with backprop's."""
EXPERIMENT = Experiment(
    "rules",
    "Relatives of Z-IL on FashionMNIST",
    "beyond the paper; sources of the rules: their documentation",
    functools.partial(cells, RULES, "rules"),
    functools.partial(
        table,
        f"An MLP with 3 hidden layers of 128, tanh, squared loss, Adam, batches of {BATCH}, the same weights and\n"
        "batches for all. IncrementalPC takes T steps of Adam a batch, the others one. Times are medians and include\n"
        f"Adam; the ratio is to a step of plain PyTorch, taken right after every {BESIDE}rd step.",
        COLUMNS,
    ),
    functools.partial(draw, "rules.svg"),
)
DEEPER = Experiment(
    "deep",
    "Deep residual networks",
    "ErrorPC: arXiv 2505.20137; muPC: arXiv 2505.13124",
    functools.partial(cells, DEEP, "deep"),
    functools.partial(
        table,
        ABOUT_DEEP,
        COLUMNS | INSIDE,
    ),
    functools.partial(draw, "deep.svg"),
)
