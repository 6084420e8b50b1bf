"""How compile time and memory grow with vertices, to 100,000: a table and a curve for the docs.

    OMP_NUM_THREADS=1 python benchmarks/bench_scale.py --write docs

Each size runs in a process of its own. A small network of other sizes is compiled there first, since the first one of a
process loads torch's tracer; that is timed apart. Then: ``pcgraph.compile(model, example_inputs=...)``, stage by
stage; what the first training step takes longer than the second (emission, learning program); and the check that the
gradients equal backprop's to the bit. ``deviation`` is that of seconds a vertex from a line through the origin, the one
that lies in the middle between the steepest and the flattest of a family.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

SIZES = {"rnn": (500, 1000, 2000, 5000, 20000), "lstm": (500, 2000, 5000, 7700)}
NAMES = [f"{family}-{steps}" for family, sizes in SIZES.items() for steps in sizes]
STAGES = ("capture", "lower", "schedule", "codegen", "bind", "first learning")


def child(name: str, threads: int) -> dict[str, Any]:
    """Measure one size; runs in its own process."""
    import torch

    import pcgraph
    from pcgraph.bench.models import labels
    from pcgraph.bench.nets import HandLSTM, HandRNN

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    family, steps = name.split("-")
    cls = {"rnn": HandRNN, "lstm": HandLSTM}[family]
    loss = torch.nn.functional.cross_entropy
    begin = time.perf_counter()
    loss(pcgraph.compile(cls(5, 7))(torch.randn(3, 4, 5)), labels(3)).backward()
    first = time.perf_counter() - begin

    def resident() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    model, x, y = cls(8, 16), torch.randn(4, int(steps), 8), labels(4)
    before, begin, cpu = resident(), time.perf_counter(), time.process_time()
    compiled = pcgraph.compile(model, example_inputs=(x,))
    compile_seconds = time.perf_counter() - begin

    def step(call: Callable[..., Any]) -> tuple[float, float, list[Any]]:
        model.zero_grad()
        begin, cpu = time.perf_counter(), time.process_time()
        loss(call(x), y).backward()
        return time.perf_counter() - begin, time.process_time() - cpu, [p.grad for p in model.parameters()]

    first_step, _, _ = step(compiled)
    cpu = time.process_time() - cpu
    second_step, second_cpu, mine = step(compiled)
    after = resident()
    _, _, theirs = step(model)
    stages = {stage: compiled.timings[stage] for stage in STAGES[:-1]} | {"first learning": first_step - second_step}
    return {
        "model": name,
        "vertices": compiled.graph.summary()["vertices"],
        "inference steps": compiled.graph.steps,
        "stages": stages,
        "seconds": compile_seconds + first_step - second_step,
        "CPU seconds": cpu - second_cpu,
        "second step": second_step,
        "first network of the process": first,
        "resident bytes": after,
        "resident bytes before": before,
        "equal": all(torch.equal(one, two) for one, two in zip(mine, theirs, strict=True)),
    }


def deviations(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By model, how far its seconds a vertex lie from the middle line of its family."""
    found = {}
    for family in SIZES:
        slopes = {r["model"]: r["CPU seconds"] / r["vertices"] for r in results if r["model"].startswith(f"{family}-")}
        if slopes:
            middle = (min(slopes.values()) + max(slopes.values())) / 2
            found.update({name: slope / middle - 1 for name, slope in slopes.items()})
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """Microseconds a vertex by stage, totals, memory; Markdown."""
    head = [
        "model",
        "vertices",
        *STAGES,
        "all",
        "seconds",
        "CPU seconds",
        "deviation",
        "MiB",
        "KiB a vertex",
        "gradients",
    ]
    off = deviations(results)
    rows = [head, ["---", *["---:"] * (len(head) - 2), "---"]]
    for r in results:
        each = [f"{1e6 * r['stages'][stage] / r['vertices']:.0f}" for stage in STAGES]
        rows.append([
            r["model"], f"{r['vertices']:,}", *each, f"{1e6 * r['seconds'] / r['vertices']:.0f}",
            f"{r['seconds']:.1f}", f"{r['CPU seconds']:.1f}", f"{100 * off[r['model']]:+.0f}%",
            f"{r['resident bytes'] / 2**20:.0f}",
            f"{(r['resident bytes'] - r['resident bytes before']) / 1024 / r['vertices']:.1f}",
            "equal" if r["equal"] else "DIFFER",
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def curve(results: Sequence[dict[str, Any]]) -> str:
    """CPU seconds over vertices, with the middle line of each family; SVG."""
    wide, high, edge = 640, 360, 50
    most_x = max(r["vertices"] for r in results)
    most_y = max(r["CPU seconds"] for r in results)

    def at(x: float, y: float) -> tuple[str, str]:
        return f"{edge + (wide - 2 * edge) * x / most_x:.1f}", f"{high - edge - (high - 2 * edge) * y / most_y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="12">',
        f'<rect width="{wide}" height="{high}" fill="white"/>',
        f'<path d="M{edge} {edge}V{high - edge}H{wide - edge}" fill="none" stroke="black"/>',
        f'<text x="{wide - edge}" y="{high - 18}" text-anchor="end">{most_x:,} vertices</text>',
        f'<text x="{edge}" y="{edge - 10}">{most_y:.0f} CPU seconds from the first call to the first gradients</text>',
    ]
    for row, (family, colour) in enumerate(zip(SIZES, ("#1b6ca8", "#c0392b"), strict=True)):
        mine = [r for r in results if r["model"].startswith(f"{family}-")]
        if not mine:
            continue
        slopes = [r["CPU seconds"] / r["vertices"] for r in mine]
        end = max(r["vertices"] for r in mine)
        (x1, y1), (x2, y2) = at(0, 0), at(end, end * (min(slopes) + max(slopes)) / 2)
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-dasharray="4 3"/>')
        for r in mine:
            x, y = at(r["vertices"], r["CPU seconds"])
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{r["model"]}</title></circle>')
        parts.append(f'<text x="{edge + 12}" y="{edge + 14 + 16 * row}" fill="{colour}">{family} by hand</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def page(results: Sequence[dict[str, Any]], threads: int) -> str:
    """The page of the docs."""
    import torch

    first = max(r["first network of the process"] for r in results)
    machine = (
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {threads} thread(s)"
    )
    return f"""# Scale: compile time and memory over vertices

Written by `OMP_NUM_THREADS=1 python benchmarks/bench_scale.py --write docs` on {date.today()}: {machine}.
From the first call to the first gradients; microseconds a vertex by stage. `deviation` is that of CPU seconds a vertex
from a line through the origin, the middle one of a family. The first network of a process loads torch's tracer: up to
{first:.1f} s more, not counted here. Where `seconds` is well above `CPU seconds`, other programs were running, and the
stages, which are by the clock, are too high.

{table(results)}

![CPU seconds over vertices](scale.svg)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="compile time and memory of pcgraph over vertices")
    parser.add_argument("--models", nargs="*", choices=NAMES, default=NAMES, metavar="MODEL", help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--add", nargs="+", default=[], metavar="FILE", help="figures of other runs, for this table")
    parser.add_argument("--write", metavar="FOLDER", help="write scale.md and scale.svg there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.threads)))
        return
    results = [result for file in options.add for result in json.loads(Path(file).read_text())]
    for name in options.models:
        command = [sys.executable, __file__, "--child", name, "--threads", str(options.threads)]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        results.append(json.loads(answer.splitlines()[-1]))
        print(table(results).splitlines()[-1], flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1))
    results.sort(key=lambda result: NAMES.index(result["model"]))
    print(table(results))
    if options.write:
        Path(options.write, "scale.md").write_text(page(results, options.threads))
        Path(options.write, "scale.svg").write_text(curve(results))
    if not all(result["equal"] for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
