"""See inference descend the energy, and where the energy goes.

Left: the energy of a network over the steps of inference, by four ways to descend it. All come to rest at the same
energy, sooner or later; moving the errors instead of the values (ErrorPC) is the soonest. Right: whose energy it is,
under plain inference learning. At first all of it is the loss, the outputs' own; then it spreads, level by level, from
the outputs to the inputs.

Writes energy_descent.png in seconds: python examples/energy_descent.py. Needs matplotlib:
pip install "pcgraph[plot]".
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import torch

import pcgraph
from pcgraph.reproduce.nets import mlp

STEPS = 800
MOMENTUM = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
RULES = {
    "IL, gamma = 0.05": pcgraph.IL(gamma=0.05, steps=STEPS),
    "IL, gamma = 0.25": pcgraph.IL(gamma=0.25, steps=STEPS),
    "IL, gamma = 0.05, momentum 0.9": pcgraph.IL(steps=STEPS, optimizer=MOMENTUM),
    "ErrorPC, gamma = 0.25": pcgraph.ErrorPC(gamma=0.25, steps=STEPS),
}


def main(file: Path) -> None:
    try:
        from matplotlib import pyplot
    except ImportError:
        sys.exit('this example draws with matplotlib: pip install "pcgraph[plot]"')
    torch.manual_seed(0)
    network = pcgraph.compile(mlp(4).double())
    x, y = torch.randn(20, 32).double(), torch.randn(20, 10).double()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    traces = {}
    for name, rule in RULES.items():
        trace = traces[name] = network.simulate(x, target=y, rule=rule, options={"record": ("energies",)})
        left.plot(trace.energies, label=name)
        near = trace.energies[-1] + 0.01 * (trace.energies[0] - trace.energies[-1])
        soon = next(t for t, energy in enumerate(trace.energies) if energy <= near)
        print(f"{name:31s} energy {trace.energies[0]:.5g} -> {trace.energies[-1]:.5g}, 99 % of it in {soon} steps")
    left.set_xscale("symlog", linthresh=1)
    left.set(xlabel="inference step t", ylabel="energy F", title="the energy, by rule")
    left.legend()

    slow = traces["IL, gamma = 0.05"]
    shares = {"outputs (the loss)": slow.losses}
    shares |= {f"{v}, d = {slow.depth_of(v)}": energies for v, energies in reversed(slow.vertex_energies.items())}
    colors = pyplot.get_cmap("magma")([0.9 - 0.8 * k / (len(shares) - 1) for k in range(len(shares))])
    right.stackplot(range(slow.steps + 1), shares.values(), labels=shares, colors=colors)
    right.set_xscale("symlog", linthresh=1)
    right.set(xlim=(0, slow.steps), xlabel="inference step t", title="whose energy it is: IL, gamma = 0.05")
    handles, labels = right.get_legend_handles_labels()
    right.legend(handles[::-1], labels[::-1], fontsize="small")
    figure.savefig(file, dpi=120)
    print(f"written to {file}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("energy_descent.png"), help="where to draw")
    main(parser.parse_args().out)
