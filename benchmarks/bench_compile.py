"""Compile time and its growth with vertices, each model in a fresh process after torch is imported.

    python benchmarks/bench_compile.py --models resnet18 rnn-500 rnn-1000 --json compile.json

A child process imports torch and pcgraph, builds the model, then times ``pcgraph.compile(model, example_inputs=...)``
(stages apart), the first training step (which makes the learning program) and one more. Microseconds a vertex are
those of compiling and of what the first step takes longer than the second. Then come two larger batches, which have
programs of their own, and the lookup of a program that is there: in a loop, and after training steps. The child also
checks that the gradients equal backprop's to the bit, and reports the largest resident size that it had before that
check.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def nets() -> dict[str, Callable[[], Any]]:
    """Model, input and labels by name; imports torch."""
    import torch
    from torch import nn

    from pcgraph.bench.models import built_in, labels
    from pcgraph.bench.nets import HandRNN, mlp

    def resnet18() -> Any:
        work = built_in("resnet18", 0)
        return work.model, work.inputs[0], work.target

    def rnn(steps: int) -> Callable[[], Any]:
        return lambda: (HandRNN(8, 16), torch.randn(4, steps, 8), labels(4))

    return {
        "resnet18": resnet18,
        **{f"rnn-{steps}": rnn(steps) for steps in (500, 1000, 5000)},
        "mlp-1000-layers": lambda: (mlp(16, 1000, 16, nn.Tanh), torch.randn(4, 16), labels(4)),
        "resnet50": resnet50,
        "gpt2-small": gpt2_small,
    }


def resnet50() -> Any:
    """torchvision's, on images of 64 x 64."""
    import torch
    from torchvision.models import resnet50 as make

    from pcgraph.bench.models import labels

    return make(num_classes=10), torch.randn(4, 3, 64, 64), labels(4)


def gpt2_small() -> Any:
    """Twelve layers, from transformers; every token predicts the next, and the last one is what is compared."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    class LastToken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gpt2 = GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.gpt2(tokens, use_cache=False).logits
            return logits[:, -1]

    return LastToken(), torch.randint(0, 1000, (2, 64)), torch.randint(0, 1000, (2,))


NAMES = ("resnet18", "rnn-500", "rnn-1000", "rnn-5000", "mlp-1000-layers", "resnet50", "gpt2-small")
LIBRARIES = {"resnet50": "torchvision", "gpt2-small": "transformers"}


def child(name: str, threads: int) -> dict[str, Any]:
    """Runs in its own process."""
    begin = time.perf_counter()
    import torch

    imported = time.perf_counter()
    import pcgraph

    seconds = {"import torch": imported - begin, "import pcgraph": time.perf_counter() - imported}
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, x, y = nets()[name]()
    begin = time.perf_counter()
    compiled = pcgraph.compile(model, example_inputs=(x,))
    seconds["compile"], stages = time.perf_counter() - begin, compiled.timings

    def step(call: Callable[..., Any]) -> tuple[float, list[Any]]:
        model.zero_grad()
        begin = time.perf_counter()
        torch.nn.functional.cross_entropy(call(x), y).backward()
        return time.perf_counter() - begin, [p.grad for p in model.parameters()]

    seconds["first step"], _ = step(compiled)
    seconds["second step"], mine = step(compiled)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lookup = lookup_seconds(compiled, x, lambda: None, 200)
    cold = lookup_seconds(compiled, x, lambda: step(compiled), 8)
    for more, name_of in ((1, "second batch size"), (2, "third batch size")):
        wider = torch.cat([x, x[:more]])
        begin = time.perf_counter()
        compiled.prepare(wider)
        seconds[name_of] = time.perf_counter() - begin
    model.eval().train()
    seconds["backprop step"], theirs = step(model)
    vertices = compiled.graph.summary()["vertices"]
    return {
        "model": name,
        "vertices": vertices,
        "inference steps": compiled.graph.steps,
        "seconds": seconds,
        "stages": stages,
        "microseconds a vertex": 1e6 * (seconds["compile"] + seconds["first step"] - seconds["second step"]) / vertices,
        "largest resident bytes": resident,
        "microseconds of a lookup": 1e6 * lookup,
        "microseconds of a lookup after a step": 1e6 * cold,
        "equal": all(torch.equal(one, two) for one, two in zip(mine, theirs, strict=True)),
    }


def lookup_seconds(network: Any, x: Any, between: Callable[[], Any], rounds: int) -> float:
    """What a repeated call spends on its signature and guards, before the compiled program; the median.

    `between` runs before each: a step leaves little of what a lookup reads in the processor's caches.
    """

    def lookup() -> float:
        between()
        begin = time.perf_counter()
        assert network._find(network._signatures.of((x,), {})) is not None
        return time.perf_counter() - begin

    return statistics.median(lookup() for _ in range(rounds))


def opening(threads: int) -> dict[str, Any]:
    from pcgraph.machine import machine, versions

    return {"versions": versions(), "machine": machine(threads), "date": time.strftime("%Y-%m-%d", time.gmtime())}


def write(path: Path, facts: dict[str, Any], lines: list[str]) -> None:
    """Between ``<!-- bench_compile -->`` and ``<!-- end of bench_compile -->``."""
    from pcgraph.bench.report import place, write_between
    from pcgraph.machine import load

    head = place(facts | {"load_after": load()})
    write_between(path, "bench_compile", "\n".join([f"{head}.", "", "```", *lines, "```"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="compile time of pcgraph in fresh processes")
    parser.add_argument(
        "--models", nargs="+", choices=NAMES, default=list(NAMES), metavar="MODEL", help=", ".join(NAMES)
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--write", metavar="FILE", type=Path, help="put the lines between their marks in this Markdown")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.threads)))
        return
    results, lines = [], []
    facts = None if options.write is None else opening(options.threads)
    for name in options.models:
        if name in LIBRARIES and importlib.util.find_spec(LIBRARIES[name]) is None:
            lines.append(f"{name:16} not run: {LIBRARIES[name]} is not installed")
            print(lines[-1], flush=True)
            continue
        command = [sys.executable, __file__, "--child", name, "--threads", str(options.threads)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(answer.splitlines()[-1])
        results.append(result)
        stages = ", ".join(f"{stage} {s:.2f}" for stage, s in result["stages"].items() if stage != "total")
        seconds = result["seconds"]
        hot, cold = (result[f"microseconds of a lookup{when}"] for when in ("", " after a step"))
        lines.append(
            f"{name:16} {result['vertices']:6} vertices: compile {seconds['compile']:6.2f} s ({stages}), "
            f"first step {seconds['first step']:.2f} s, {result['microseconds a vertex']:.0f} us a vertex, "
            f"another batch size {seconds['second batch size']:.2f} s, a third {seconds['third batch size']:.2f} s, "
            f"lookup {hot:.0f} us ({cold:.0f} after a step), {result['largest resident bytes'] / 2**20:.0f} MiB; "
            f"{'gradients equal' if result['equal'] else 'GRADIENTS DIFFER'}"
        )
        print(lines[-1], flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
    if facts is not None:
        write(options.write, facts, lines)
    if not all(result["equal"] for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
