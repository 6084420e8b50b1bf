"""Inference learning against eager backprop: one training step with SGD, in backprop steps.

    python benchmarks/bench_il.py --steps 20 --rounds 100 --json il.json

How it measures
* A step sets gradients to None, computes gradients for the squared loss, and lets `torch.optim.SGD` step. Backprop is
  the plain module and ``loss.backward()``; the others are ``pcn.learn(x, y, loss, rule)`` on equal parameters.
* Before anything is timed, inference learning must equal the full simulation to the bit, in float64 and at gamma = 1/8
  (where both round alike), and Z-IL by the same call must equal backprop to the bit in float32; if not, it stops.
* In every round each candidate runs once, in a newly shuffled order; backprop is entered twice (A/A). Ratios are taken
  within a round; reported are their median and quartiles. The clock is ``time.thread_time``: with one thread it is what
  the step costs, whatever else the machine does (`--clock wall` for the other one).
* "all nodes" is the same program without the activity analysis: every vertex at every step. Shown where T < depth.
* "IL's products" are the multiplications of its matrix products over those of a backprop step: what the step would
  cost if nothing else took time.
"""

from __future__ import annotations

import argparse
import copy
import functools
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pcgraph
from pcgraph.bench.nets import alexnet, lenet, mlp
from pcgraph.codegen import Inference
from pcgraph.codegen.program import PROGRAMS
from pcgraph.runtime import inference as runtime
from pcgraph.schedule import schedule

Step = Callable[[], object]


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Half the sum of squares: predictive coding's own loss."""
    return F.mse_loss(output, target, reduction="sum") / 2


@dataclass(frozen=True)
class Net:
    """A network with the sizes of its inputs and outputs, and whether its depth is beyond T."""

    make: Callable[[], nn.Module]
    x: tuple[int, ...]
    y: tuple[int, ...]
    deep: bool = False


NETS = {
    "mlp-300": Net(lambda: mlp(300, 3, 784, nn.Tanh), (64, 784), (64, 10)),
    "lenet": Net(lenet, (64, 1, 28, 28), (64, 10)),
    "alexnet": Net(alexnet, (64, 3, 32, 32), (64, 10)),
    "mlp-100-layers": Net(lambda: mlp(64, 100, 64, nn.Tanh), (64, 64), (64, 10), deep=True),
}


def built(net: Net) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return net.make(), torch.randn(net.x), torch.randn(net.y)


def check(net: Net, steps: int) -> None:
    """Stop unless both rules give what they should."""
    model, x, y = built(net)
    few = slice(0, 2)
    twin = copy.deepcopy(model).double()
    network = pcgraph.compile(twin)
    wide, target = x[few].double(), y[few].double()
    rule = pcgraph.IL(gamma=0.125, steps=steps)
    found = network.infer(wide, target, squared, rule).gradients
    trace = network.simulate(wide, loss=lambda output: squared(output, target), rule=rule)
    for name, gradient in trace.gradients.items():
        if not torch.equal(found[name], gradient):
            raise SystemExit(f"inference learning's gradient of {name} differs from the simulation's: not timed")
    squared(model(x), y).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    pcgraph.compile(model).learn(x, y, squared, pcgraph.ZIL())
    for name, p in model.named_parameters():
        if not torch.equal(p.grad, expected[name]):
            raise SystemExit(f"Z-IL's gradient of {name} differs from backprop's: not timed")


@functools.cache
def unskipping(inference: Inference) -> Inference:
    """The same program with every vertex at every step."""
    return Inference(schedule(inference.graph, pcgraph.IL()), PROGRAMS, skipping=False)


def candidates(net: Net, rule: pcgraph.IL) -> dict[str, Step]:
    """Steps on networks of their own, of equal parameters; a learning rate too small to change what is computed."""

    def stepper(learn: Callable[[nn.Module, Tensor, Tensor], object], wrap: bool) -> Step:
        model, x, y = built(net)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        learner = pcgraph.compile(model) if wrap else model

        def step() -> None:
            optimizer.zero_grad()
            learn(learner, x, y)
            optimizer.step()

        return step

    def fused(rule: pcgraph.IL | pcgraph.ZIL) -> Step:
        model, x, y = built(net)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        network = pcgraph.compile(model, backend="inductor")

        def step() -> None:
            optimizer.zero_grad()
            network.learn(x, y, squared, rule, optimizer)

        return step

    def backprop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        squared(model(x), y).backward()

    def inference(network: Any, x: Tensor, y: Tensor) -> None:
        network.learn(x, y, squared, rule)

    def zil(network: Any, x: Tensor, y: Tensor) -> None:
        network.learn(x, y, squared, pcgraph.ZIL())

    def everything(network: Any, x: Tensor, y: Tensor) -> None:
        program = network.prepare(x)._last().compiled.program
        skipping = runtime.inference_of(program)
        kept, key = runtime.inferences[program], (False, frozenset[str]())
        kept[key] = unskipping(skipping)
        network.learn(x, y, squared, rule)
        kept[key] = skipping

    steps = {
        "backprop": stepper(backprop, False),
        "backprop again": stepper(backprop, False),
        "Z-IL": stepper(zil, True),
        "IL": stepper(inference, True),
        "Z-IL, fused": fused(pcgraph.ZIL()),
        "IL, fused": fused(rule),
    }
    if net.deep:
        steps["IL, all nodes"] = stepper(everything, True)
    return steps


def race(steps: dict[str, Step], rounds: int, seconds: float, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every candidate in every round."""
    order, shuffle = list(steps), random.Random(0)
    for _ in range(3):
        for name in order:
            steps[name]()
    times: dict[str, list[float]] = {name: [] for name in steps}
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for k in range(rounds):
            if k >= 7 and time.perf_counter() - begin > seconds:
                break
            shuffle.shuffle(order)
            for name in order:
                start = clock()
                steps[name]()
                times[name].append(clock() - start)
    finally:
        gc.enable()
    return times


def multiplications(step: Step) -> int | None:
    """Of the matrix products in one step; None where there are convolutions."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        step()
    total = 0
    for event in profile.events():
        if event.name.startswith("aten::convolution"):
            return None
        if event.name in ("aten::mm", "aten::addmm"):
            place = 1 if event.name == "aten::addmm" else 0
            (m, k), (_, n) = event.input_shapes[place : place + 2]
            total += m * k * n
    return total


def shares(step: Step) -> dict[str, float]:
    """Where a step's time goes: kernels by name, and what is not inside of any."""
    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        start = time.perf_counter()
        for _ in range(5):
            step()
        total = 1e6 * (time.perf_counter() - start)
    averages = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    found = {event.key.removeprefix("aten::"): event.self_cpu_time_total / total for event in averages[:9]}
    return {**found, "other calls": sum(e.self_cpu_time_total for e in averages[9:]) / total}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    net, rule = NETS[name], pcgraph.IL(gamma=options.gamma, steps=options.steps)
    check(net, options.steps)
    steps = candidates(net, rule)
    clock = time.thread_time if options.clock == "cpu" else time.perf_counter
    times = race(steps, options.rounds, options.seconds, clock)
    ratios = {}
    for key in steps:
        quartiles = statistics.quantiles([a / b for a, b in zip(times[key], times["backprop"], strict=True)], n=4)
        ratios[key] = dict(zip(("low", "median", "high"), quartiles, strict=True))
    model, x, _ = built(net)
    base = multiplications(steps["backprop"])
    return {
        "model": name,
        "rounds": len(times["IL"]),
        "vertices": pcgraph.compile(model, example_inputs=(x,)).graph.summary()["vertices"],
        "depth": pcgraph.compile(model, example_inputs=(x,)).graph.steps,
        "milliseconds": {key: 1e3 * statistics.median(values) for key, values in times.items()},
        "ratios": ratios,
        "shares": shares(steps["IL"]),
        "products": None if base is None else (multiplications(steps["IL"]) or 0) / base,
    }


def shown(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['median']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def report(results: list[dict[str, Any]]) -> str:
    """The table."""
    head = (
        "model",
        "vertices",
        "depth",
        "rounds",
        "backprop ms",
        "A/A",
        "Z-IL",
        "IL",
        "IL's products",
        "Z-IL, fused",
        "IL, fused",
        "IL, all nodes",
    )
    lines: list[tuple[str, ...]] = [head]
    for r in results:
        ratios = r["ratios"]
        lines.append(
            (
                *(r["model"], str(r["vertices"]), str(r["depth"]), str(r["rounds"])),
                *(f"{r['milliseconds']['backprop']:.2f}", shown(ratios["backprop again"]), shown(ratios["Z-IL"])),
                *(
                    shown(ratios["IL"]),
                    "-" if r["products"] is None else f"{r['products']:.2f}",
                    *(shown(ratios["Z-IL, fused"]), shown(ratios["IL, fused"])),
                    shown(ratios.get("IL, all nodes")),
                ),
            )
        )
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    text = "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    for r in results:
        parts = (f"{key} {100 * share:.0f}%" for key, share in r["shares"].items())
        text += f"\n\n{r['model']}, where IL's time goes: " + ", ".join(parts)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="a training step of inference learning, in eager backprop steps")
    parser.add_argument(
        "--models", nargs="+", choices=list(NETS), default=list(NETS), metavar="MODEL", help=", ".join(NETS)
    )
    parser.add_argument("--steps", type=int, default=20, help="T")
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=100, help="rounds a model, at most")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="stop a model after this long, but not before 7 rounds"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more, for quartiles")
    torch.set_num_threads(options.threads)
    results = []
    for name in options.models:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results.append(measure(name, options))
    print(
        f"torch {torch.__version__}, {options.threads} thread(s), {platform.machine()}, {options.clock} time, ", end=""
    )
    print(f"T = {options.steps}; ratios to an eager backprop step, SGD included\n")
    print(report(results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"torch": torch.__version__, "threads": options.threads, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
