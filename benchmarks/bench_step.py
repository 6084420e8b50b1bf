"""One training step (forward, loss, backward) of pcgraph against eager backprop: time and peak tensor memory.

    python benchmarks/bench_step.py --models mlp-512 lenet --rounds 60 --json step.json

How it measures
* All candidates share one set of parameters and live in one process; a step sets gradients to None, predicts,
  computes cross entropy and calls ``backward()``. Before anything is timed, pcgraph's output, loss, gradients and
  buffers must equal backprop's to the bit, on copies; if not, the program stops.
* ``pcn.step(x, y, loss)``, a whole step in one call, is a candidate of its own ("in one call").
* In every round each candidate runs once, in a newly shuffled order, since whoever runs after whom matters. Backprop
  is entered twice: the ratio "A/A" of backprop to itself says which differences mean nothing. Ratios are taken within
  a round; reported are their median and, in brackets, their quartiles. The garbage collector is off inside.
* Wall time is ``time.perf_counter``, CPU time is ``time.thread_time`` of the calling thread, which on a CPU runs the
  backward pass too. With one thread CPU time is the steadier of the two on a shared machine; with more it misses the
  worker threads, so read wall time.
* Peak tensor memory is the largest sum of live bytes that torch's allocator handed out during a step, beyond what was
  held before it (parameters, input): activations, temporaries and gradients. It is added up from the allocation events
  of ``torch.profiler`` (``profile_memory=True``), in order of time, so it is exact and has nothing to do with the
  operating system's page counts. Scratch memory inside of oneDNN and MKL does not pass the allocator, for neither side.
* Every network is measured in a process of its own, so compile time includes what later networks would find cached.
* nn.LSTM is a fused kernel in eager torch. The ratio compares pcgraph with backprop through the same unrolled
  network; the fused module is timed as a further candidate and printed beside it.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from nets import NETS, Net
from torch import Tensor, nn

import pcgraph

Call = Callable[[Tensor], Tensor]
FEWEST_ROUNDS = 7


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    """The loss of every network here."""
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1))


def train_step(call: Call, parameters: list[nn.Parameter], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the output and the loss."""
    for parameter in parameters:
        parameter.grad = None
    output = call(x)
    loss = cross_entropy(output, y)
    loss.backward()
    return output, loss


def assert_equal(net: Net) -> dict[str, float]:
    """Stop unless pcgraph's step equals backprop's, to the bit, twice in a row.

    Returns the seconds that compiling took, in total and by stage.
    """
    model, x, y = net.build()
    twin = copy.deepcopy(model)
    reference: Call = model if net.unrolled is None else net.unrolled(model)
    begin = time.perf_counter()
    compiled = pcgraph.compile(twin, example_inputs=(x,))
    seconds = {"total": time.perf_counter() - begin}
    seconds = {**getattr(compiled, "timings", {}), **seconds}
    for _ in range(2):
        mine = train_step(reference, list(model.parameters()), x, y)
        theirs = train_step(compiled, list(twin.parameters()), x, y)
        pairs: list[tuple[str, Tensor | None, Tensor | None]]
        pairs = [("output", mine[0], theirs[0]), ("loss", mine[1], theirs[1])]
        others = dict(twin.named_parameters())
        pairs += [(f"gradient of {name}", p.grad, others[name].grad) for name, p in model.named_parameters()]
        buffers = dict(twin.named_buffers())
        pairs += [(f"buffer {name}", b, buffers[name]) for name, b in model.named_buffers()]
        for name, one, two in pairs:
            assert_same(name, one, two)
        twin.zero_grad()
        assert_same("loss in one call", mine[1], compiled.step(x, y, cross_entropy))
        for name, p in model.named_parameters():
            assert_same(f"gradient of {name} in one call", p.grad, others[name].grad)
        for name, b in model.named_buffers():
            b.copy_(buffers[name])  # the step moved them once more
    return seconds


def assert_same(name: str, mine: Tensor | None, theirs: Tensor | None) -> None:
    assert mine is not None and theirs is not None, name
    if not torch.equal(mine, theirs):
        gap = (mine - theirs).abs().max().item()
        raise SystemExit(f"{name} differs from backprop's by {gap:.3g}: not timed")


def peak_bytes(step: Callable[[], object]) -> int:
    """Most bytes that one step holds at once beyond those held before it."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def race(steps: dict[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Wall and CPU seconds of every candidate in every round; stops early after `seconds`."""
    order = list(steps)
    shuffle = random.Random(0)
    for _ in range(3):
        for name in order:
            steps[name]()
    times: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in steps} for clock in ("wall", "cpu")}
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for k in range(rounds):
            if k >= FEWEST_ROUNDS and time.perf_counter() - begin > seconds:
                break
            shuffle.shuffle(order)
            for name in order:
                wall, cpu = time.perf_counter(), time.thread_time()
                steps[name]()
                times["cpu"][name].append(time.thread_time() - cpu)
                times["wall"][name].append(time.perf_counter() - wall)
    finally:
        gc.enable()
    return times


def ratio(times: dict[str, list[float]], name: str, base: str = "backprop") -> dict[str, float]:
    """Median and quartiles of a candidate's time over the base's time in the same round."""
    ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def measure(name: str, net: Net, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything there is to say about one network."""
    compile_seconds = assert_equal(net)
    model, x, y = net.build()
    parameters = list(model.parameters())
    reference: Call = model if net.unrolled is None else net.unrolled(model)
    compiled = pcgraph.compile(model, example_inputs=(x,))
    graph = compiled.graph
    calls: dict[str, Call] = {"backprop": reference, "backprop again": reference, "pcgraph": compiled}
    if net.unrolled is not None:
        calls["fused"] = model

    def stepper(call: Call) -> Callable[[], object]:
        def step() -> None:
            train_step(call, parameters, x, y)

        return step

    def in_one_call() -> None:
        for parameter in parameters:
            parameter.grad = None
        compiled.step(x, y, cross_entropy)

    steps = {key: stepper(call) for key, call in calls.items()} | {"in one call": in_one_call}
    times = race(steps, rounds, seconds)
    memory = {}
    for key in ("backprop", "pcgraph", "in one call"):
        for parameter in parameters:
            parameter.grad = None  # both start without gradients, which count as part of the step
        memory[key] = peak_bytes(steps[key])
    ratios = {clock: {key: ratio(times[clock], key) for key in steps if key != "backprop"} for clock in ("wall", "cpu")}
    if "fused" in steps:
        for clock in ("wall", "cpu"):
            ratios[clock]["pcgraph to fused"] = ratio(times[clock], "pcgraph", "fused")
    return {
        "model": name,
        "rounds": len(times["wall"]["backprop"]),
        "vertices": graph.summary()["vertices"],
        "inference steps": graph.steps,
        "compile": compile_seconds,
        "milliseconds": {c: {k: 1e3 * statistics.median(v) for k, v in t.items()} for c, t in times.items()},
        "ratios": ratios,
        "peak bytes": memory,
        "peak ratio": memory["pcgraph"] / memory["backprop"],
        "peak ratio in one call": memory["in one call"] / memory["backprop"],
    }


def shown(value: dict[str, float]) -> str:
    return f"{value['median']:.3f} [{value['low']:.2f}, {value['high']:.2f}]"


def report(results: list[dict[str, Any]]) -> str:
    """Tables for people."""
    head = (
        *("model", "rounds", "backprop ms", "wall ratio", "CPU ratio", "wall, in one call", "CPU, in one call"),
        *("A/A wall", "A/A CPU", "MiB", "memory", "in one call"),
    )
    lines: list[tuple[str, ...]] = [head]
    for r in results:
        wall, cpu, ms = r["ratios"]["wall"], r["ratios"]["cpu"], r["milliseconds"]["wall"]
        again, one = "backprop again", "in one call"
        lines.append(
            (
                *(r["model"], str(r["rounds"]), f"{ms['backprop']:.2f}"),
                *(shown(wall["pcgraph"]), shown(cpu["pcgraph"]), shown(wall[one]), shown(cpu[one])),
                *(shown(wall[again]), shown(cpu[again]), f"{r['peak bytes']['backprop'] / 2**20:.1f}"),
                *(f"{r['peak ratio']:.3f}", f"{r['peak ratio in one call']:.3f}"),
            )
        )
    text = table(lines)
    stages = sorted({s for r in results for s in r["compile"]} - {"total"}, key=_stage)
    lines = [("compile", "vertices", "T", "total s", *(f"{stage} s" for stage in stages))]
    for r in results:
        seconds = [r["compile"].get(stage) for stage in ("total", *stages)]
        cells = ("-" if s is None else f"{s:.3f}" for s in seconds)
        lines.append((r["model"], str(r["vertices"]), str(r["inference steps"]), *cells))
    text += "\n\n" + table(lines)
    for r in results:
        if "fused" in r["ratios"]["wall"]:
            beside = {clock: shown(r["ratios"][clock]["pcgraph to fused"]) for clock in ("wall", "cpu")}
            text += f"\n\n{r['model']}: pcgraph to the fused module: wall {beside['wall']}, CPU {beside['cpu']}"
    return text


def _stage(name: str) -> int:
    known = ("capture", "lower", "schedule", "codegen", "bind")
    return known.index(name) if name in known else len(known)


def table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def apart(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one network in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        limits = ["--rounds", str(options.rounds), "--seconds", str(options.seconds), "--threads", str(options.threads)]
        command = [sys.executable, __file__, "--models", name, *limits, "--json", path]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        with open(path) as file:
            return json.load(file)["results"]


def main() -> None:
    parser = argparse.ArgumentParser(description="step time and peak tensor memory: pcgraph against eager backprop")
    parser.add_argument(
        "--models", nargs="+", choices=list(NETS), default=list(NETS), metavar="MODEL", help=", ".join(NETS)
    )
    parser.add_argument("--rounds", type=int, default=200, help="rounds a model, at most")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="stop a model after this long (but not before 7 rounds)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be 2 or more, for quartiles")
    torch.set_num_threads(options.threads)
    results = []
    for name in options.models:
        if len(options.models) == 1:
            results.append(measure(name, NETS[name], options.rounds, options.seconds))
        else:
            print(f"{name} ...", file=sys.stderr, flush=True)
            results += apart(name, options)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {platform.machine()}; ratios to eager backprop\n")
    print(report(results))
    if options.json:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": options.threads}
        with open(options.json, "w") as file:
            json.dump({**machine, "machine": platform.machine(), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
