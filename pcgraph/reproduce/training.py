"""Experiment ``training``: whole trainings by backprop and by Z-IL from one start, compared to the last bit."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph

from ..bench.nets import mlp, resnet18
from ..demo.compare import largest_difference
from ..demo.train import accuracy, batches
from ..errors import PCGraphError
from .cell import Cell, Experiment, Found, Numbers, Settings, Tell, rows
from .cifar import cifar10
from .data import Split, fashion_mnist
from .images import Share, image_folder
from .pictures import panels

Net = Literal["MLP", "AlexNet", "ResNet-18"]
Data = Literal["FashionMNIST", "CIFAR-10", "ImageNet"]


@dataclass(frozen=True)
class Plan:
    """One training; all that its numbers depend on.

    Attributes:
        net: what is trained.
        data: on what.
        epochs: over the training images.
        seed: of weights and of the order of images.
        width: share of the usual number of channels of AlexNet.
        train: the first so many training images; None: all.
        test: the first so many held-back images; None: all.
        batch: images per step.
        rate: of learning. The MLP is trained by SGD with momentum 0.9, all else by Adam.
        looks: how often accuracy is measured on the way, the end included.
        share: of the classes and pictures of ImageNet.
    """

    net: Net
    data: Data
    epochs: int
    seed: int
    width: float = 1.0
    train: int | None = None
    test: int | None = None
    batch: int = 64
    rate: float = 1e-3
    looks: int = 10
    share: Share = field(default=Share(100, 300, 50))

    @property
    def title(self) -> str:
        """For people."""
        width = "" if self.width == 1 else f", {self.width:g} of its width"
        return f"{self.net}{width}, {self.data}"


def alexnet(channels: int, side: int, classes: int, width: float = 1.0) -> nn.Sequential:
    """AlexNet's five convolutions and three linear layers for small images, without dropout.

    Args:
        channels: of the images.
        side: their height and width in pixels; even, at most 32, to which the first convolution pads.
        classes: to tell apart.
        width: share of the usual number of channels inside.
    """
    a, b, c, d, e = (round(width * n) for n in (64, 192, 384, 256, 1024))
    layers: list[nn.Module] = [nn.Conv2d(channels, a, 3, 2, 17 - side // 2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
    for inside, outside in ((b, c), (c, d), (d, d)):
        layers += [nn.Conv2d(inside, outside, 3, 1, 1), nn.ReLU()]
    head = [nn.Linear(4 * d, e), nn.ReLU(), nn.Linear(e, e), nn.ReLU(), nn.Linear(e, classes)]
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), *head)


@dataclass
class Learner:
    """A model in training.

    Attributes:
        network: what is asked for predictions: the plain model, or its `PCNetwork`.
        model: the plain model, which holds the weights.
        optimizer: of its weights.
        curve: accuracy on the held-back images, at each look.
        seconds: of all steps.
    """

    network: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    curve: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def step(self, x: Tensor, y: Tensor) -> None:
        """One update on images [batch, channels, side, side] of classes [batch]."""
        start = time.perf_counter()
        if isinstance(self.network, pcgraph.PCNetwork):
            self.network.step(x, y, F.cross_entropy, self.optimizer)
        else:
            F.cross_entropy(self.network(x), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.seconds += time.perf_counter() - start


def learner(plan: Plan, split: Split, seed: int, by_z_il: bool) -> Learner:
    """A fresh model, whose weights are drawn by `seed`."""
    torch.manual_seed(seed)
    model = _model(plan, split)
    optimizer: torch.optim.Optimizer
    if plan.net == "MLP":
        optimizer = torch.optim.SGD(model.parameters(), lr=plan.rate, momentum=0.9)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=plan.rate)
    return Learner(pcgraph.compile(model) if by_z_il else model, model, optimizer)


def _model(plan: Plan, split: Split) -> nn.Module:
    if plan.net == "MLP":
        return nn.Sequential(nn.Flatten(), mlp(128, 2, split.train_x[0].numel()))
    if plan.net == "AlexNet":
        return alexnet(split.train_x.shape[1], split.train_x.shape[2], split.classes, plan.width)
    net = resnet18()
    net[-1] = nn.Linear(512, split.classes)
    return net


def train(plan: Plan, split: Split, tell: Tell, z_il_seed: int | None = None) -> Numbers:
    """Train by backprop and by Z-IL, step by step in turn, on the same batches; the last, smaller one is left out.

    Args:
        plan: what to train.
        split: on what.
        tell: how far it is.
        z_il_seed: of the weights of Z-IL; None: those of backprop. Others are for a control that must fail.

    Returns:
        ``accuracy_bp``, ``accuracy_zil``: at the end, as shares.
        ``largest_weight_difference``: over all parameters and buffers.
        ``equal``: whether all of them are, to the bit.
        ``epochs``, ``images``, ``steps``, ``parameters``.
        ``seconds_bp``, ``seconds_zil``: of the steps, compilation included.
        ``curve_steps``, ``curve_bp``, ``curve_zil``: accuracies and the steps after which they were measured.

    Raises:
        PCGraphError: there are fewer training images than one batch needs.
    """
    split = split.first(plan.train, plan.test)
    bp = learner(plan, split, plan.seed, by_z_il=False)
    z_il = learner(plan, split, plan.seed if z_il_seed is None else z_il_seed, by_z_il=True)
    images = len(split.train_y)
    steps = plan.epochs * (images // plan.batch)
    if not steps:
        raise PCGraphError(
            f"{images} training images are fewer than one batch of {plan.batch}", hint="get the whole set"
        )
    looks = sorted({max(1, steps * k // plan.looks) for k in range(1, plan.looks + 1)})
    order = [bp, z_il]
    for done, chosen in enumerate(batches(images, plan.epochs, plan.batch, plan.seed, None), 1):
        for one in order:
            one.step(split.train_x[chosen], split.train_y[chosen])
        order.reverse()  # who goes first finds colder caches
        if done in looks:
            for one in order:
                one.curve.append(accuracy(one.network, split.test_x, split.test_y))
            tell(f"{done:,} of {steps:,} steps, accuracy {bp.curve[-1]:.3f} and {z_il.curve[-1]:.3f}")
    mine, theirs = _state(z_il.model), _state(bp.model)
    return {
        "accuracy_bp": bp.curve[-1],
        "accuracy_zil": z_il.curve[-1],
        "largest_weight_difference": largest_difference(mine, theirs),
        "equal": all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)),
        "epochs": plan.epochs,
        "images": images,
        "steps": steps,
        "parameters": sum(p.numel() for p in bp.model.parameters()),
        "seconds_bp": bp.seconds,
        "seconds_zil": z_il.seconds,
        "curve_steps": looks,
        "curve_bp": bp.curve,
        "curve_zil": z_il.curve,
    }


def _state(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def plans(settings: Settings) -> list[Plan]:
    """What is trained."""
    seed = settings.seed
    if settings.full:
        return [
            Plan("MLP", "FashionMNIST", 10, seed, rate=0.01),
            Plan("AlexNet", "FashionMNIST", 5, seed, width=0.5),
            Plan("AlexNet", "FashionMNIST", 2, seed),
            Plan("AlexNet", "CIFAR-10", 10, seed),
            Plan("ResNet-18", "ImageNet", 3, seed),
        ]
    return [
        Plan("MLP", "FashionMNIST", 2, seed, rate=0.01),
        Plan("AlexNet", "FashionMNIST", 3, seed, width=0.25, train=6_400, test=1_000),
        Plan("AlexNet", "CIFAR-10", 3, seed, width=0.25, train=6_400, test=1_000),
        Plan("AlexNet", "ImageNet", 3, seed, width=0.25, share=Share(10, 200, 50)),
    ]


def load(plan: Plan, folder: Path | None) -> Split:
    """The images of a plan."""
    if plan.data == "ImageNet":
        return image_folder(folder, 32, plan.share)
    return (fashion_mnist if plan.data == "FashionMNIST" else cifar10)(folder)


def cells(settings: Settings) -> list[Cell]:
    """A cell per network and data set."""

    def cell(plan: Plan) -> Cell:
        def measure(tell: Tell) -> Numbers:
            return train(plan, load(plan, settings.data), tell)

        return Cell("training", plan.title, measure, {**asdict(plan), **settings.source})

    return [cell(plan) for plan in plans(settings)]


def table(found: list[Found]) -> str:
    """Accuracies, and how far apart the weights end."""
    columns = {
        "epochs": "epochs",
        "images": "images",
        "accuracy BP": "accuracy_bp",
        "accuracy Z-IL": "accuracy_zil",
        "largest difference of weights": "largest_weight_difference",
        "equal to the bit": "equal",
        "seconds BP": "seconds_bp",
        "seconds Z-IL": "seconds_zil",
    }
    return rows(found, columns, "network, data")


def draw(found: list[Found], folder: Path) -> list[str]:
    """Accuracy over steps: backprop a wide line, Z-IL a thin one on top of it."""

    def lines(axes: Any, one: dict[str, Any]) -> None:
        axes.plot(one["curve_steps"], one["curve_bp"], linewidth=4, alpha=0.4, label="BP")
        axes.plot(one["curve_steps"], one["curve_zil"], color="black", linewidth=1, label="Z-IL")

    return panels(found, folder / "training.png", lines, xlabel="steps", ylabel="accuracy, held-back images")


EXPERIMENT = Experiment(
    "training",
    "Whole trainings by backprop and by Z-IL, from one start and on the same batches",
    "arXiv 2103.03725: Z-IL reaches backprop's accuracy, on AlexNet as on MLPs; here by the same weights",
    cells,
    table,
    draw,
)
