"""Time against peak tensor memory of a step: eager backprop, torch's checkpoints, pcgraph by default and low.

    python benchmarks/bench_memory.py --models resnet50 gpt-4 --rounds 15 --docs docs/memory.md

How it measures
* All candidates share one set of parameters and live in one process. ``memory="low"`` must equal backprop's gradients
  and buffers to the bit, on copies, before anything is measured; if not, the program stops.
* Peak tensor memory is `pcgraph.measure.peak_memory`: the largest sum of bytes that torch's allocator handed out during
  a step beyond what was held before, gradients included. It is the same at every run.
* Times are medians of ratios to backprop within a round, in an order shuffled every round; backprop is entered twice
  ("again") to show which differences mean nothing.
* torch's checkpoints are `torch.utils.checkpoint` around each block of the model, as a user would put them.
* Every network is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import pcgraph
from pcgraph.bench import models
from pcgraph.measure import alternate, peak_memory, ratio

BEGIN, END = "<!-- benchmarks/bench_memory.py writes from here -->", "<!-- to here -->"
Made = tuple[nn.Module, Tensor, Tensor]


class Logits(nn.Module):
    """A language model of transformers that returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits


def built_in(name: str) -> Made:
    """A model of the step benchmark."""
    work = models.built_in(name, 0)
    return work.model, work.inputs[0], work.target


def gpt2_small(batch: int, length: int) -> Made:
    import transformers

    config = transformers.GPT2Config(use_cache=False)  # random weights
    ids = torch.randint(0, config.vocab_size, (batch, length))
    return Logits(transformers.GPT2LMHeadModel(config)), ids, torch.randint(0, config.vocab_size, (batch, length))


MODELS: dict[str, Callable[[], Made]] = {
    **{name: functools.partial(built_in, name) for name in ("resnet50", "resnet18", "gpt-4", "lstm-50")},
    "gpt2-small": lambda: gpt2_small(4, 128),
}
BLOCKS = ("Bottleneck", "BasicBlock", "Block", "GPT2Block")  # what torch's checkpoints are put around


def build(name: str) -> Made:
    torch.manual_seed(0)
    return MODELS[name]()


def checkpointed(model: nn.Module) -> nn.Module | None:
    """The same parameters, every block inside of a checkpoint; None if the model has no blocks."""
    parameters = {id(p): p for p in model.parameters()} | {id(b): b for b in model.buffers()}
    twin = copy.deepcopy(model, dict(parameters))
    blocks = [module for module in twin.modules() if type(module).__name__ in BLOCKS]
    for block in blocks:
        block.forward = _inside(block.forward)  # type: ignore[method-assign]
    return twin if blocks else None


def _inside(forward: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, **kwargs)


def cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), y.reshape(-1))


def assert_equal(name: str) -> None:
    """Stop unless low memory learns what backprop learns, to the bit."""
    model, x, y = build(name)
    twin = copy.deepcopy(model)
    for call in (model, pcgraph.compile(twin, memory="low")):
        torch.manual_seed(1)
        cross_entropy(call(x), y).backward()
    theirs = dict(twin.named_parameters()) | dict(twin.named_buffers())
    for key, p in (*model.named_parameters(), *model.named_buffers()):
        pairs = [(p, theirs[key]), (p.grad, theirs[key].grad)]
        if any(a is not None and not torch.equal(a, b) for a, b in pairs):
            raise SystemExit(f"{name}: {key} differs from backprop's: not measured")


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Bytes and ratios of one network."""
    assert_equal(name)
    model, x, y = build(name)
    parameters = list(model.parameters())
    calls: dict[str, Any] = {"backprop": model, "again": model, "default": pcgraph.compile(model)}
    calls["low"] = pcgraph.compile(model, memory="low")
    checkpoints = checkpointed(model)
    if checkpoints is not None:
        calls["checkpoints"] = checkpoints

    def clear() -> None:
        for parameter in parameters:
            parameter.grad = None

    def two_calls(call: Any) -> Callable[[], None]:
        def step() -> None:
            cross_entropy(call(x), y).backward()
            clear()

        return step

    def one_call(network: Any) -> Callable[[], None]:
        def step() -> None:
            network.step(x, y, cross_entropy)
            clear()

        return step

    steps = {key: two_calls(call) for key, call in calls.items()}
    steps |= {f"{key}, in one call": one_call(calls[key]) for key in ("default", "low")}
    peaks = {}
    for key, step in steps.items():
        step()
        peaks[key] = peak_memory(step)
    times = alternate(steps, rounds) if rounds else {}
    ratios = {key: ratio(times, key, "backprop") for key in times}
    gradients = sum(p.numel() * p.element_size() for p in parameters)
    return {"model": name, "peaks": peaks, "times": ratios, "gradients": gradients, "rounds": rounds}


def report(results: list[dict[str, Any]]) -> str:
    """One table for people."""
    lines = ["| model | candidate | peak MiB | memory | time |", "|---|---|---|---|---|"]
    for result in results:
        base = result["peaks"]["backprop"]
        for key, peak in result["peaks"].items():
            time = f"{result['times'][key]:.2f}" if result["times"] else "not run"
            lines.append(f"| {result['model']} | {key} | {peak / 2**20:.1f} | {peak / base:.3f} | {time} |")
        lines.append(
            f"| {result['model']} | gradients alone | {result['gradients'] / 2**20:.1f} | "
            f"{result['gradients'] / base:.3f} | |"
        )
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Put the table between its marks."""
    page = path.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def apart(name: str, rounds: int) -> dict[str, Any]:
    """Measure one network in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, __file__, "--models", name, "--rounds", str(rounds), "--json", str(path)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        found: dict[str, Any] = json.loads(path.read_text())[0]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description="time against peak tensor memory of a training step")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=15, help="0: memory alone")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--docs", type=Path, help="write the table into this page, between its marks")
    parser.add_argument("--results", type=Path, nargs="+", help="measure nothing: a table of what --json wrote before")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.results:
        publish([result for path in options.results for result in json.loads(path.read_text())], options.docs)
        return
    one = len(options.models) == 1
    results = [measure(n, options.rounds) if one else apart(n, options.rounds) for n in options.models]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    publish(results, options.docs)


def publish(results: list[dict[str, Any]], docs: Path | None) -> None:
    """Print the table, and write it into a page if asked for."""
    facts = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, one thread; rounds: "
    facts += ", ".join(f"{r['model']} {r['rounds']}" for r in results) + ". Memory and time are ratios to backprop."
    text = f"{facts}\n\n{report(results)}"
    print(text)
    if docs:
        write(docs, text)


if __name__ == "__main__":
    main()
