"""Z-IL and backprop walk the same path: the weights of one network, step by step, in the plane where they move most.

Left: the paths of all weights, on their two principal directions. Z-IL, the thin line, lies on backprop, the wide one;
inference learning, which only approximates the gradient, goes its own way. Right: how far each is from backprop after
every step, as a share of the way that backprop has come. Z-IL's distance is 0 at every step, to the bit.

Writes trajectories.png in less than a minute: python examples/trajectories.py. Needs matplotlib:
pip install "pcgraph[plot]".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

import pcgraph
from pcgraph.reproduce.nets import mlp, squared

RULES = {
    "backprop": None,
    "Z-IL": pcgraph.ZIL(),
    "IL, gamma = 0.1, T = 10": pcgraph.IL(gamma=0.1, steps=10),
    "IL, gamma = 0.1, T = 100": pcgraph.IL(gamma=0.1, steps=100),
}


def path(rule: pcgraph.Rule | None, steps: int) -> Tensor:
    """All weights [steps + 1, weights] of a network that learns by a rule; None is plain backprop."""
    torch.manual_seed(0)
    x, model = torch.randn(256, 16), mlp(2, 32, 16, 4)
    y = mlp(1, 32, 16, 4)(2 * x).argmax(1)  # another network is the teacher
    optimizer, network = torch.optim.SGD(model.parameters(), lr=0.005), pcgraph.compile(model)
    seen = [torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()]
    for batch in torch.randint(256, (steps, 32)):
        if rule is None:
            optimizer.zero_grad()
            squared(model(x[batch]), y[batch]).backward()
            optimizer.step()
        else:
            network.learn(x[batch], y[batch], squared, rule, optimizer)
        seen.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone())
    return torch.stack(seen)


def main(file: Path, steps: int) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit('this example draws with matplotlib: pip install "pcgraph[plot]"')
    paths = {name: path(rule, steps) for name, rule in RULES.items()}
    truth = paths["backprop"]
    visited = torch.cat(list(paths.values()))
    plane = torch.linalg.svd(visited - visited.mean(0), full_matrices=False).Vh[:2].T
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for name, way in paths.items():
        style = {"backprop": {"linewidth": 6, "alpha": 0.35}, "Z-IL": {"color": "black", "linewidth": 1}}.get(name, {})
        left.plot(*((way - truth[0]) @ plane).T, label=name, **style)
        gap = (way - truth).norm(dim=1)[1:] / (truth - truth[0]).norm(dim=1)[1:]
        right.plot(range(1, steps + 1), gap, label=name, **{"color": left.lines[-1].get_color(), **style})
        equal = "equal to the bit" if torch.equal(way, truth) else f"relative distance {gap[-1]:.2g}"
        print(f"{name:26s} after {steps} steps: {equal}")
    left.plot(0, 0, "ko", label="start")
    left.set(xlabel="first principal direction", ylabel="second", title="path of the weights")
    right.set(xlabel="training steps", ylabel="distance from backprop / way it has come", title="apart", ylim=(0, None))
    left.legend()
    right.legend()
    figure.savefig(file, dpi=120)
    print(f"written to {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("trajectories.png"), help="where to draw (trajectories.png)")
    parser.add_argument("--steps", type=int, default=300, help="of training (300)")
    options = parser.parse_args()
    main(options.out, options.steps)
