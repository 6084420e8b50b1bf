"""See inference: the energy descends, and the errors run through a residual network, one level a step.

Writes waves.png in less than a minute: python examples/waves.py. Needs matplotlib: pip install "pcgraph[plot]".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import pcgraph
from pcgraph.bench.nets import resnet18


def main(file: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit('this example draws with matplotlib: pip install "pcgraph[plot]"')
    torch.manual_seed(0)
    network = pcgraph.compile(resnet18().eval())  # batch statistics of two images would be steep
    x, y = torch.randn(2, 3, 16, 16), torch.nn.functional.one_hot(torch.tensor([3, 7]), 10).float()
    steps = network.prepare(x).graph.steps
    rule = pcgraph.IL(gamma=0.05, steps=steps + 20)
    # With values as the state, x - mu would lose the small errors far from the output.
    options = {"record": ("norms",), "coordinates": "error", "progress": True}
    trace = network.simulate(x, target=y, rule=rule, options=options)
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for ax, kind in zip(axes, ("energy", "wave"), strict=True):
        trace.plot(kind, ax)
    figure.savefig(file, dpi=120)
    first, last = trace.energies[0], trace.energies[-1]
    print(f"{len(trace.norms)} error nodes on {steps + 1} levels; energy {first:.4g} -> {last:.4g}")
    print(f"written to {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("waves.png"), help="where to draw (waves.png)")
    main(parser.parse_args().out)
