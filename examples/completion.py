"""Half an image is enough: a network that learned to generate images completes those that it has never seen.

The network runs from a class to an image and learns by inference learning, with both of them clamped. To complete an
image the upper half of its pixels is clamped and the lower half is free: inference moves the hidden values and the
missing pixels down the energy at once. Nothing is trained for that. In the fourth row the class is known; in the last
one it is free as well, and inference finds one, which is written below and is sometimes wrong.

Writes completion.png in less than a minute: python examples/completion.py. The images are FashionMNIST's where
Debian's package dataset-fashion-mnist is installed, else scikit-learn's digits: pip install "pcgraph[demo,plot]".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph
from pcgraph.demo.data import FASHION_MNIST, load
from pcgraph.demo.names import Source

HIDDEN, BATCH, STEPS, GAMMA = 64, 100, 600, 0.05
PRECISION = 200.0  # of all pixels together; that of a hidden node is 1
SHOWN = 12


def loss(output: Tensor, images: Tensor) -> Tensor:
    """The energy of the pixels [N, pixels]."""
    return PRECISION / images.shape[1] / 2 * (images - output).square().sum()


def generator(classes: Tensor, images: Tensor) -> pcgraph.PCNetwork:
    """Learned from classes [N, 10], one-hot, and images [N, pixels]."""
    model = nn.Sequential(nn.Linear(10, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, images.shape[1]))
    network, optimizer = pcgraph.compile(model), torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.3)
    for batch in torch.randint(len(images), (STEPS, BATCH)):
        network.learn(classes[batch], images[batch], loss, pcgraph.IL(gamma=GAMMA, steps=30), optimizer)
    return network


def complete(network: pcgraph.PCNetwork, classes: Tensor, images: Tensor, held: Tensor, known: bool) -> pcgraph.Trace:
    """Inference with images clamped where `held` [N, pixels] is true, and classes clamped if they are `known`."""
    name = network.prepare(classes).graph.outputs[0].vertex
    options = {"clamp": {name: images}, "mask": {name: held}, "energies": {name: PRECISION / images.shape[1]}}
    options["free"] = [] if known else ["input_1"]
    return network.simulate(classes, rule=pcgraph.IL(gamma=GAMMA, steps=400), options=options)


def main(file: Path, data: Source) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit('this example draws with matplotlib: pip install "pcgraph[plot]"')
    torch.manual_seed(0)
    images = load(data, seed=0)
    test, classes = images.test_x[:300].flatten(1), F.one_hot(images.test_y[:300], 10).float()
    network = generator(F.one_hot(images.train_y, 10).float(), images.train_x.flatten(1))
    upper = (torch.arange(images.side**2) < images.side**2 // 2).expand_as(test)
    known = complete(network, classes, test, upper, known=True)
    free = complete(network, torch.full_like(classes, 0.1), test, upper, known=False)

    name = known.graph.outputs[0].vertex
    rows = {
        "unseen image": test,
        "clamped": test.masked_fill(~upper, torch.nan),
        "generated": known.outputs[0].detach(),
    }
    rows |= {"class known": known.final_values[name], "class free": free.final_values[name]}
    mean = images.train_x.flatten(1).mean(0).expand_as(test)
    for label in ("mean image", "generated", "class known", "class free"):
        error = (rows.get(label, mean) - test)[~upper].square().mean()
        print(f"{label:12s} squared error of a missing pixel {error:.4f}")
    found = free.final_values["input_1"].argmax(1)
    print(f"class free   {float((found == images.test_y[:300]).float().mean()):.0%} of the classes found")

    figure, axes = pyplot.subplots(len(rows), SHOWN, figsize=(SHOWN + 1.5, len(rows) + 0.5), layout="constrained")
    for line, (label, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for ax, pixels in zip(line, row, strict=False):
            ax.imshow(pixels.view(images.side, images.side), cmap="gray_r", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
    for ax, number, right in zip(axes[-1], found.tolist(), images.test_y.tolist(), strict=False):
        ax.set_xlabel(f"found {number}" if number == right else f"found {number}, is {right}")
    figure.savefig(file, dpi=120)
    print(f"written to {file}")


if __name__ == "__main__":
    default = Source.FASHION_MNIST if FASHION_MNIST.is_dir() else Source.DIGITS
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("completion.png"), help="where to draw (completion.png)")
    parser.add_argument("--data", type=Source, default=default, help=f"digits or fashion-mnist (here {default})")
    options = parser.parse_args()
    main(options.out, options.data)
