"""One training step under the back end `inductor`, against backprop through torch.compile'd models and eager backprop.

    OMP_NUM_THREADS=1 python benchmarks/bench_inductor.py --models mlp-64 lenet --json inductor.json

Candidates share one set of parameters, live in one process and run once per round, in an order shuffled anew every
round; the base of all ratios is ``loss(torch.compile(model)(x), y).backward()``. It is entered twice (A/A). Before
anything is timed, every candidate's gradients must be about as close to float64 as eager backprop's: the bound is
`pcgraph.rounding`'s. Compile time is that of a process of its own with an empty cache, from the call of the compiler to
the end of the first step; ``--compile`` measures it. With ``--sgd`` the step includes ``torch.optim.SGD``.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from bench_step import cross_entropy, race, ratio, shown, table
from nets import EXTRA, NETS
from torch import Tensor, nn

import pcgraph
from pcgraph.rounding import distance, largest

Step = Callable[[], object]
ALL = {**NETS, **EXTRA}
BASE = "torch.compile"


def candidates(name: str) -> tuple[nn.Module, dict[str, Step], Tensor, Tensor]:
    """The model and its steps, compiled at their first call; nothing sets gradients to None here."""
    net = ALL[name]
    model, x, y = net.build()
    reference = model if net.unrolled is None else net.unrolled(model)
    fused = torch.compile(reference)
    network = pcgraph.compile(model, backend="inductor")
    steps: dict[str, Step] = {
        BASE: lambda: cross_entropy(fused(x), y).backward(),
        "again": lambda: cross_entropy(fused(x), y).backward(),
        "eager": lambda: cross_entropy(reference(x), y).backward(),
        "inductor": lambda: cross_entropy(network(x), y).backward(),
        "in one call": lambda: network.step(x, y, cross_entropy),
    }
    return model, steps, x, y


def assert_close(name: str, model: nn.Module, steps: dict[str, Step]) -> float:
    """Stop unless every candidate is about as close to float64 as eager backprop; the largest distance from that."""
    twin, x, y = ALL[name].build()
    wide = copy.deepcopy(twin).double()
    exact = wide if ALL[name].unrolled is None else ALL[name].unrolled(wide)
    cross_entropy(exact(x.double() if x.is_floating_point() else x), y).backward()
    buffers = {k: b.clone() for k, b in model.named_buffers()}
    gradients: dict[str, list[Tensor]] = {}
    for key in ("eager", *(k for k in steps if k != "eager")):
        for b_name, b in model.named_buffers():
            b.copy_(buffers[b_name])
        model.zero_grad()
        steps[key]()
        gradients[key] = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    worst = 0.0
    references = [p.grad for p in wide.parameters()]
    for key, found in gradients.items():
        among = max(largest(a) for a in gradients["eager"])
        for a, b, r in zip(gradients["eager"], found, references, strict=True):
            gap, allowed = distance(a, b, r, among)
            if gap > allowed:
                raise SystemExit(
                    f"{name}, {key}: a gradient is {gap:.1e} from float64, allowed {allowed:.1e}: not timed"
                )
            if key in ("inductor", "in one call"):
                worst = max(worst, distance(a, b, None, among)[0])
    return worst


def measure(name: str, rounds: int, seconds: float, sgd: bool) -> dict[str, Any]:
    """Ratios of one network."""
    model, steps, _, _ = candidates(name)
    worst = assert_close(name, model, steps)
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=1e-6) if sgd else None

    def whole(step: Step) -> Step:
        def run() -> None:
            for parameter in parameters:
                parameter.grad = None
            step()
            if optimizer is not None:
                optimizer.step()

        return run

    times = race({key: whole(step) for key, step in steps.items()}, rounds, seconds)
    ratios = {key: ratio(times["wall"], key, BASE) for key in steps if key != BASE}
    to_eager = {key: ratio(times["wall"], key, "eager") for key in steps if key != "eager"}
    return {
        "model": name,
        "rounds": len(times["wall"][BASE]),
        "milliseconds": {k: 1e3 * sorted(v)[len(v) // 2] for k, v in times["wall"].items()},
        "ratios": ratios,
        "to eager": to_eager,
        "largest distance": worst,
    }


def first_step(name: str, which: str) -> float:
    """Seconds from the call of a compiler to the end of the first step."""
    net = ALL[name]
    model, x, y = net.build()
    begin = time.perf_counter()
    if which == BASE:
        call = torch.compile(model if net.unrolled is None else net.unrolled(model))
    else:
        call = pcgraph.compile(model, backend="inductor")
    if which == "in one call":
        call.step(x, y, cross_entropy)
    else:
        cross_entropy(call(x), y).backward()
    return time.perf_counter() - begin


def apart(arguments: list[str], fresh: bool = False) -> Any:
    """What this script writes as JSON with other arguments, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        environment = {**os.environ, **({"TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "cache")} if fresh else {})}
        command = [sys.executable, __file__, *arguments, "--json", path]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
        with open(path) as file:
            return json.load(file)["results"]


def report(results: list[dict[str, Any]]) -> str:
    """Tables for people."""
    keys = ("again", "inductor", "in one call", "eager")
    lines: list[tuple[str, ...]] = [("model", "rounds", f"{BASE} ms", *keys, "one call to eager", "max distance")]
    for r in results:
        if "ratios" in r:
            head = (r["model"], str(r["rounds"]), f"{r['milliseconds'][BASE]:.2f}")
            cells = (*(shown(r["ratios"][key]) for key in keys), shown(r["to eager"]["in one call"]))
            lines.append((*head, *cells, f"{r['largest distance']:.1e}"))
    text = table(lines) if len(lines) > 1 else ""
    whose = (BASE, "inductor", "in one call")
    lines = [("compile, s", *whose)]
    lines += [(r["model"], *(f"{r['compile'][w]:.1f}" for w in whose)) for r in results if "compile" in r]
    return text + ("\n\n" + table(lines) if len(lines) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description="the back end inductor against torch.compile'd backprop")
    parser.add_argument("--models", nargs="+", choices=list(ALL), default=list(NETS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=200, help="rounds a model, at most")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="stop a model after this long (not before 7 rounds)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sgd", action="store_true", help="include torch.optim.SGD in every step")
    parser.add_argument("--compile", action="store_true", help="measure compile time, with empty caches, instead")
    parser.add_argument("--first", choices=(BASE, "inductor", "in one call"), help=argparse.SUPPRESS)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threads = ["--threads", str(options.threads)]
    results: list[Any] = []
    for name in options.models:
        if options.first:
            results.append(first_step(name, options.first))
        elif options.compile:
            whose = (BASE, "inductor", "in one call")
            seconds = {w: apart(["--models", name, "--first", w, *threads], fresh=True)[0] for w in whose}
            results.append({"model": name, "compile": seconds})
        elif len(options.models) == 1:
            results.append(measure(name, options.rounds, options.seconds, options.sgd))
        else:
            limits = ["--rounds", str(options.rounds), "--seconds", str(options.seconds), *threads]
            results += apart(["--models", name, *limits, *(["--sgd"] if options.sgd else [])])
        if not options.first:
            print(f"{name} ...", file=sys.stderr, flush=True)
    if not options.first:
        print(f"torch {torch.__version__}, {options.threads} thread(s), {platform.machine()}; ratios to {BASE}\n")
        print(report(results))
    if options.json:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": options.threads}
        with open(options.json, "w") as file:
            json.dump({**machine, "machine": platform.machine(), "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
