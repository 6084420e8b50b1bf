"""Many seeds in one program: networks that differ in their weights only are stacked and learn together by Z-IL.

`torch.func.stack_module_state` stacks the weights, `vmap` inside of forward runs all networks on the same batch. The
sum of their losses gives each its own gradient, so that it learns as if it were alone; both ways are run, timed and
compared. The picture shows how much of the result is the seed's.

This is for Z-IL. Inside of vmap a linear layer is several operations, each with a value node of its own, so that
inference learning would relax in another network than that of one seed.

Writes seeds.png in less than a minute: python examples/seeds.py. Needs matplotlib: pip install "pcgraph[plot]".
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

import pcgraph
from pcgraph.reproduce.nets import mlp

SEEDS, STEPS, BATCH, RATE = 8, 300, 32, 0.1


class Together(nn.Module):
    """Several networks of one shape: x [batch, inputs] -> [seeds, batch, outputs]."""

    def __init__(self, models: list[nn.Module]) -> None:
        super().__init__()
        stacked, _ = stack_module_state(models)
        self.names, self.weights = list(stacked), nn.ParameterList(stacked.values())
        self.shape = (models[0],)  # in a tuple, so that its own weights are not this module's

    def forward(self, x: Tensor) -> Tensor:
        weights = dict(zip(self.names, self.weights, strict=True))
        return vmap(lambda one: functional_call(self.shape[0], one, (x,)))(weights)


def loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross entropy of outputs [..., batch, classes]: means over the batch, added up over networks."""
    flat = outputs.flatten(0, -2)
    return F.cross_entropy(flat, y.repeat(len(flat) // len(y)), reduction="sum") / len(y)


def trained(model: nn.Module, x: Tensor, y: Tensor, batches: Tensor) -> tuple[list[Tensor], float]:
    """The model's outputs for x every 10 steps, and the seconds that the steps took."""
    network, optimizer = pcgraph.compile(model), torch.optim.SGD(model.parameters(), lr=RATE)
    seen, seconds = [], 0.0
    for k, batch in enumerate(batches):
        start = time.perf_counter()
        network.step(x[batch], y[batch], loss, optimizer)
        seconds += (time.perf_counter() - start) * (k > 0)  # the first one compiles
        if k % 10 == 9:
            seen.append(model(x).detach())
    return seen, seconds


def main(file: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit('this example draws with matplotlib: pip install "pcgraph[plot]"')
    torch.manual_seed(0)
    x, teacher = torch.randn(512, 16), mlp(1, 32, 16, 4)
    y, batches = teacher(2 * x).argmax(1), torch.randint(256, (STEPS, BATCH))  # the other half is held back
    models = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        models.append(mlp(2, 32, 16, 4))
    together, seconds = trained(Together(models), x, y, batches)
    alone, each = zip(*(trained(model, x, y, batches) for model in models), strict=True)
    gap = max(float((a - b[k]).abs().max()) for k, one in enumerate(alone) for a, b in zip(one, together, strict=True))
    print(f"{SEEDS} seeds, {STEPS} steps: {sum(each):.2f} s one after the other, {seconds:.2f} s together")
    print(f"largest difference of an output {gap:.1e}")

    right = torch.stack([(outputs[:, 256:].argmax(2) == y[256:]).float().mean(1) for outputs in together])
    figure, ax = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    ax.plot(range(10, STEPS + 1, 10), 100 * right, linewidth=1, label=[f"seed {k}" for k in range(SEEDS)])
    ax.plot(range(10, STEPS + 1, 10), 100 * right.mean(1), color="black", linewidth=3, label="mean")
    ax.set(xlabel="training steps", ylabel="accuracy, held-back data, %", title=f"{SEEDS} seeds in one program")
    ax.legend(ncols=3, fontsize="small")
    figure.savefig(file, dpi=120)
    print(f"written to {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("seeds.png"), help="where to draw (seeds.png)")
    main(parser.parse_args().out)
