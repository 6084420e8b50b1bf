"""Inference learning beside the JAX libraries for predictive coding: one process, one MLP, one batch, one thread.

    taskset -c 0 env OMP_NUM_THREADS=1 python benchmarks/bench_peers.py --json peers.json

Needs jpc and pcx (from their repositories; both run on jax 0.5.2) and optax. What is missing is left out, and said.

How it measures
* The network is 784-300-300-300-10, tanh, squared loss, batch 64. Every contender is one jitted (pcgraph: compiled)
  call: forward pass, T inference steps of plain gradient descent, and a step of SGD on the weights.
* In every round each runs once at T = 20 and once at T = 40, in an order that is shuffled anew. What an inference step
  costs is the difference, by 20: it holds no forward pass, no weight gradient and no call. Medians and quartiles.
* The networks of the peers have a value node per layer, and so has pcgraph's with ``value_nodes="layers"``: it and
  jpc's follow the same equations. With a node per operation there are two per layer: one more product of a slope, one
  more error, one more step. jpc takes any list of layers, so it runs in this way too.
* Before it is timed each must lower its loss in 30 training steps.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import numpy as np
import torch
import torch.nn.functional as F

import pcgraph
from pcgraph.bench.nets import mlp
from pcgraph.bench.report import write_between
from pcgraph.measure import alternate

SIZES, BATCH, GAMMA, RATE = (784, 300, 300, 300, 10), 64, 0.1, 0.001
SHORT, LONG = 20, 40
Step = Callable[[], float]
Maker = Callable[[int, Any, Any], Step]


def squared(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(output, target, reduction="sum") / 2


def backprop(_: int, x: Any, y: Any) -> Step:
    torch.manual_seed(0)
    model, x, y = mlp(300, 3, 784, torch.nn.Tanh), torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> float:
        optimizer.zero_grad()
        loss = squared(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def own(backend: str, value_nodes: str) -> Maker:
    def make(steps: int, x: Any, y: Any) -> Step:
        torch.manual_seed(0)
        model, x, y = mlp(300, 3, 784, torch.nn.Tanh), torch.from_numpy(x), torch.from_numpy(y)
        network = pcgraph.compile(model, backend=backend, value_nodes=value_nodes)
        rule = pcgraph.IL(gamma=GAMMA, steps=steps)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        return lambda: float(network.learn(x, y, squared, rule, optimizer))

    return make


def _jpc_layers() -> list[Any]:
    """A value node per layer."""
    import jax
    import jpc

    layers: list[Any] = jpc.make_mlp(jax.random.PRNGKey(0), 784, 300, 4, 10, "tanh", use_bias=True)
    return layers


def _jpc_operations() -> list[Any]:
    """The same network with a value node per operation."""
    import equinox as eqx
    import jax

    found = [layer.layers for layer in _jpc_layers()]  # an activation, then a linear map
    return [found[0][1], *(part for layers in found[1:] for part in (eqx.nn.Lambda(jax.numpy.tanh), layers[1]))]


def jpc(layers: Callable[[], list[Any]], steps: int, x: Any, y: Any) -> Step:
    import equinox as eqx
    import jax
    import jpc
    import optax

    model = layers()
    weights, values = optax.sgd(RATE * BATCH), optax.sgd(GAMMA * BATCH)  # its energies are means over the batch
    state = weights.init((eqx.filter(model, eqx.is_array), None))
    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)

    @eqx.filter_jit
    def train(model: Any, state: Any) -> Any:
        activities = jpc.init_activities_with_ffwd(model=model, input=x)
        loss = 0.5 * jax.numpy.sum((y - activities[-1]) ** 2)
        inner = values.init(activities)

        def infer(_: int, carried: Any) -> Any:
            found = jpc.update_pc_activities((model, None), carried[0], values, carried[1], y, input=x)
            return found["activities"], found["opt_state"]

        activities, inner = jax.lax.fori_loop(0, steps, infer, (activities, inner))
        found = jpc.update_pc_params((model, None), activities, weights, state, y, input=x)
        return found["model"], found["opt_state"], loss

    held = [model, state]

    def step() -> float:
        held[0], held[1], loss = train(*held)
        return float(jax.block_until_ready(loss))

    return step


def pcx(steps: int, x: Any, y: Any) -> Step:
    import jax
    import optax
    import pcx as px
    import pcx.functional as pxf
    import pcx.nn as pxnn
    import pcx.predictive_coding as pxc
    import pcx.utils as pxu

    px.RKG.seed(0)

    class Model(pxc.EnergyModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [pxnn.Linear(a, b) for a, b in itertools.pairwise(SIZES)]
            self.vodes = [pxc.Vode() for _ in self.layers]
            self.vodes[-1].h.frozen = True

        def __call__(self, x: Any, y: Any) -> Any:
            for vode, layer in zip(self.vodes[:-1], self.layers[:-1], strict=True):
                x = vode(jax.numpy.tanh(layer(x)))
            self.vodes[-1](self.layers[-1](x))
            if y is not None:
                self.vodes[-1].set("h", y)
            return self.vodes[-1].get("u")

    over_batch = pxu.M(pxc.VodeParam | pxc.VodeParam.Cache).to((None, 0))
    model = Model()

    @pxf.vmap(over_batch, in_axes=(0, 0), out_axes=0)
    def forward(x: Any, y: Any, *, model: Any) -> Any:
        return model(x, y)

    @pxf.vmap(over_batch, in_axes=(0,), out_axes=(None, 0), axis_name="batch")
    def energy(x: Any, *, model: Any) -> Any:
        output = model(x, None)
        return jax.lax.psum(model.energy(), "batch"), output

    free = pxu.M_hasnot(pxc.VodeParam, frozen=True)

    @pxf.jit()
    def train(x: Any, y: Any, *, model: Any, weights: Any, values: Any) -> Any:
        model.train()
        with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
            output = forward(x, y, model=model)
        values.init(free(model))
        for _ in range(steps):
            with pxu.step(model, clear_params=pxc.VodeParam.Cache):
                _, slopes = pxf.value_and_grad(free.to([False, True]), has_aux=True)(energy)(x, model=model)
            values.step(model, slopes["model"])
        values.clear()
        with pxu.step(model, clear_params=pxc.VodeParam.Cache):
            _, slopes = pxf.value_and_grad(pxu.M(pxnn.LayerParam).to([False, True]), has_aux=True)(energy)(
                x, model=model
            )
        weights.step(model, slopes["model"])
        return 0.5 * jax.numpy.sum((y - output) ** 2)

    x, y = jax.numpy.asarray(x), jax.numpy.asarray(y)
    with pxu.step(model, pxc.STATUS.INIT, clear_params=pxc.VodeParam.Cache):
        forward(x, y, model=model)
    weights = pxu.Optim(lambda: optax.sgd(RATE), pxu.M(pxnn.LayerParam)(model))
    values = pxu.Optim(lambda: optax.sgd(GAMMA))
    return lambda: float(jax.block_until_ready(train(x, y, model=model, weights=weights, values=values)))


MAKERS: dict[str, Maker] = {
    "pcgraph, eager": own("eager", "layers"),
    "pcgraph, inductor": own("inductor", "layers"),
    "pcgraph, inductor, a node per operation": own("inductor", "operations"),
    "jpc": functools.partial(jpc, _jpc_layers),
    "jpc, a node per operation": functools.partial(jpc, _jpc_operations),
    "pcx": pcx,
}


def _learns(name: str, step: Step) -> None:
    losses = [step() for _ in range(30)]
    if not losses[-1] < 0.9 * losses[0]:
        raise SystemExit(f"{name} does not learn: loss {losses[0]:.4g} -> {losses[-1]:.4g}")
    print(f"{name}: loss {losses[0]:.4g} -> {losses[-1]:.4g}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--write", metavar="FILE", help="put the table between its marks in this Markdown")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    x = draw.standard_normal((BATCH, SIZES[0]), dtype=np.float32)
    y = draw.standard_normal((BATCH, SIZES[-1]), dtype=np.float32)
    steps: dict[str, Callable[[], object]] = {"backprop": backprop(0, x, y), "again": backprop(0, x, y)}
    missing = []
    for name, maker in MAKERS.items():
        try:
            made = {f"{name} {t}": maker(t, x, y) for t in (SHORT, LONG)}
        except ImportError as error:
            missing.append(f"{name}: not run: {error}")
            continue
        for key, step in made.items():
            _learns(key, step)
        steps |= made
    seconds = alternate(steps, options.rounds)
    base = seconds["backprop"]
    rows = []
    for name in MAKERS:
        if f"{name} {SHORT}" not in seconds:
            continue
        short, long = seconds[f"{name} {SHORT}"], seconds[f"{name} {LONG}"]
        each = [(b - a) / (LONG - SHORT) for a, b in zip(short, long, strict=True)]
        whole = [a / b for a, b in zip(short, base, strict=True)]
        quartiles = [1e3 * q for q in statistics.quantiles(each, n=4)]
        rows.append({"name": name, "inference_step_ms": quartiles, "step_over_backprop": statistics.median(whole)})
    packages = {}
    for name in ("torch", "jax", "jaxlib", "jpc", "pcx"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    again = statistics.median(a / b for a, b in zip(seconds["again"], base, strict=True))
    report = {"rows": rows, "missing": missing, "backprop_ms": 1e3 * statistics.median(base), "again": again}
    report |= {
        "rounds": options.rounds,
        "python": platform.python_version(),
        "pcgraph": pcgraph.__version__,
        **packages,
    }
    lines = ["| contender | inference step, ms (quartiles) | T = 20 step / backprop step |", "| --- | --: | --: |"]
    for row in rows:
        low, middle, high = row["inference_step_ms"]
        lines.append(f"| {row['name']} | {middle:.3f} ({low:.3f} to {high:.3f}) | {row['step_over_backprop']:.2f} |")
    about = f"Backprop's step {report['backprop_ms']:.2f} ms, once more {again:.3f} of it; {options.rounds} rounds. "
    about += ", ".join(f"{name} {number}" for name, number in packages.items()) + f". {datetime.date.today()}."
    text = "\n".join([*lines, "", about, *missing])
    print(text)
    if options.write:
        write_between(Path(options.write), "bench_peers", text)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
