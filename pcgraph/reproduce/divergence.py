"""How far one update is from backprop's: Z-IL, and what is left of it without each of its conditions."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph

from .cell import Cell, Experiment, Found, Numbers, Settings, Tell, rows
from .nets import NETS, squared

GAMMAS = (0.9, 0.5, 0.1)
COMPILED, SIMULATED = "Z-IL, compiled", "simulation, errors as state"
LAW = "law of appendix F"
UNLEVELLED = "edges not levelled"
CONDITIONS: dict[str, tuple[pcgraph.Rule, dict[str, Any]]] = {
    SIMULATED: (pcgraph.ZIL(), {"coordinates": "error"}),
    "simulation, values as state": (pcgraph.ZIL(), {}),
    "all parameters at T": (pcgraph.ZIL(update="end"), {}),
    **{f"gamma = {gamma}": (pcgraph.ZIL(gamma=gamma), {}) for gamma in GAMMAS},
    "errors start at 1e-3": (pcgraph.ZIL(), {"initial_error": 1e-3}),
    UNLEVELLED: (pcgraph.ZIL(), {"levelled": False}),
    "IL, gamma = 0.1, T = 64": (pcgraph.IL(gamma=0.1, steps=64), {}),
}
SKIPS = {"residual MLP"}  # elsewhere every edge spans one level as it is
ABOUT = f"""\
Distance of one update from backprop's, relative to its length. *{COMPILED}* is what trains: its gradients must be
backprop's to the bit. All other columns are the full simulation, every node at every step: twice with all conditions of
Z-IL, where what is left is rounding (an error beside a large value loses digits if the state is the value, and none if
it is the error), then without one of them, where it is not rounding. Where no edge is long, levelling changes nothing,
and the column is empty. The last column is an equality: the largest relative deviation from the law that gamma scales
an error at depth d by gamma^d, over gamma = {", ".join(map(str, GAMMAS))}."""


def distance(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """``||a - b|| / ||b||`` over all parameters, the Euclidean distance of two updates relative to backprop's."""
    apart = sum(float((found[name] - slope).double().square().sum()) for name, slope in wanted.items())
    size = sum(float(slope.double().square().sum()) for slope in wanted.values())
    return float((apart / size) ** 0.5)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Taken off the parameters."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def _one_update(name: str, dtype: torch.dtype, seed: int, tell: Tell) -> Numbers:
    model, x, y = NETS[name].built(seed, dtype)
    squared(model(x), y).backward()
    wanted = gradients(model)
    network = pcgraph.compile(model)
    squared(network(x), y).backward()
    found = gradients(model)
    numbers: dict[str, Any] = {COMPILED: distance(found, wanted)}
    numbers["equal to the bit"] = all(torch.equal(found[n], g) for n, g in wanted.items()) and set(found) == set(wanted)
    for condition, (rule, options) in CONDITIONS.items():
        tell(condition)
        if condition == UNLEVELLED and name not in SKIPS:
            continue
        trace = network.simulate(x, target=y, rule=rule, options=options)
        numbers[condition] = distance(trace.gradients, wanted)
    if dtype is torch.float64:
        numbers[LAW] = max(_law(network, x, y, gamma) for gamma in GAMMAS)
    return numbers


def _law(network: pcgraph.PCNetwork, x: Tensor, y: Tensor, gamma: float) -> float:
    """Largest relative deviation from ``eps_v(d_v) = -gamma^{d_v} dL/dmu_v`` over all vertices."""
    options = {"coordinates": "error"}  # the errors are tiny beside the values
    exact, scaled = (network.simulate(x, target=y, rule=pcgraph.ZIL(gamma=g), options=options) for g in (1.0, gamma))
    worst = 0.0
    for name, error in exact.update_errors.items():
        wanted = gamma ** exact.depth_of(name) * error
        size = float(wanted.abs().max())
        if size:
            worst = max(worst, float((scaled.update_errors[name] - wanted).abs().max()) / size)
    return worst


def cells(settings: Settings) -> list[Cell]:
    """A cell per network and type."""
    found = []
    for name in NETS:
        for dtype in (torch.float32, torch.float64):
            kind = str(dtype).removeprefix("torch.")
            measure = functools.partial(_one_update, name, dtype, settings.seed)
            found.append(Cell("divergence", f"{name}, {kind}", measure, {"seed": settings.seed}))
    return found


def table(found: list[Found]) -> str:
    """A row per network and type."""
    titles = [COMPILED, "equal to the bit", *CONDITIONS, LAW]
    text = rows(found, {title: title for title in titles}, "network")
    return f"{ABOUT}\n\n{text}"


def draw(found: list[Found], folder: Path) -> list[str]:
    """Distances on a logarithmic axis; what is zero, or beyond all numbers, has no bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    ax = figure.subplots()
    names = [COMPILED, *CONDITIONS]
    width = 0.8 / len(found)
    for k, item in enumerate(found):
        values = [one if isinstance(one := item.numbers.get(name), float) else 0.0 for name in names]
        ax.bar([place + (k - len(found) / 2) * width for place in range(len(names))], values, width, label=item.name)
    ax.set_yscale("log")
    ax.set_xticks(range(len(names)), names, rotation=20, ha="right")
    ax.set_ylabel("distance from backprop's update")
    ax.legend(fontsize="x-small", ncols=2)
    figure.savefig(folder / "divergence.svg")
    return ["divergence.svg"]


EXPERIMENT = Experiment(
    "divergence",
    "Divergence from backprop after one update",
    "arXiv 2103.03725, section 3.3 and appendices F and H; levelling: Salvatori et al., AAAI 2022",
    cells,
    table,
    draw,
)
