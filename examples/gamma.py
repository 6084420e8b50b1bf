"""What gamma = 1 is good for: with a smaller step of inference every level passes on only a share of its error.

Left: the size of each vertex's error when it learns, over backprop's at the same vertex. Dots are measured, lines are
gamma to the power of the depth: the smaller gamma, the less the first layers learn. Right: how far the gradients of all
parameters together are from backprop's. As gamma comes close to 1 the distance falls to rounding; it does not where
all parameters learn at T, whatever gamma is.

Writes gamma.png in seconds: python examples/gamma.py. Needs matplotlib: pip install "pcgraph[plot]".
Source: arXiv 2103.03725, appendix F.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

import pcgraph
from pcgraph.reproduce.nets import residual

GAMMAS = (0.25, 0.5, 0.75, 0.9, 1.0)
GAPS = (*(10.0**k for k in range(-12, 0)), 0.25, 0.5, 0.75)


def main(file: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit('this example draws with matplotlib: pip install "pcgraph[plot]"')
    torch.manual_seed(0)
    network = pcgraph.compile(residual(4).double())
    x, y = torch.randn(16, 32).double(), torch.randn(16, 10).double()

    def run(gamma: float, update: str = "depth") -> pcgraph.Trace:
        rule = pcgraph.ZIL(gamma=gamma, update=update)
        return network.simulate(x, target=y, rule=rule, options={"record": ("distance",)})

    exact = run(1)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for gamma in GAMMAS:
        trace = run(gamma)
        shares = {v: float(e.norm() / exact.update_errors[v].norm()) for v, e in trace.update_errors.items()}
        levels = range(trace.steps + 1)
        [line] = left.plot(levels, [gamma**d for d in levels])
        left.plot([trace.depth_of(v) for v in shares], shares.values(), "o", color=line.get_color(), label=f"{gamma:g}")
        print(f"gamma = {gamma:<4g}  first layer: {shares['linear']:.1e} of backprop's error", end="")
        print(f"  relative distance from backprop {trace.distance[-1]:.1e}")
    left.set(yscale="log", xlabel="depth d (0: output)", ylabel="error / backprop's", title="vertex by vertex")
    left.legend(title="gamma")

    for name, update in {"each at its depth": "depth", "all at T": "end"}.items():
        apart = [run(1 - gap, update).distance[-1] for gap in GAPS]
        right.plot(GAPS, apart, marker="o", label=f"parameters learn {name}")
    right.axhline(exact.distance[-1], color="gray", linestyle="--", label="each at its depth, gamma = 1")
    right.set(xscale="log", yscale="log", xlabel="1 - gamma", ylabel="distance / size of backprop's gradient")
    right.set(title="all parameters together")
    right.legend(loc="upper left", bbox_to_anchor=(0, 0.88))
    figure.savefig(file, dpi=120)
    print(f"written to {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gamma.png"), help="where to draw (gamma.png)")
    main(parser.parse_args().out)
