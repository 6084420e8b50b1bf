"""Seconds and memory of `pcgraph.from_onnx`: ResNet-50 as torchvision exports it, and files of 100 MB.

    OMP_NUM_THREADS=1 python benchmarks/bench_onnx.py --rounds 3 --write docs/onnx.md

Every import runs in a process of its own, which imports a tiny file first: that loads onnx and onnx_ir, and is timed
apart ("first"). Memory is the peak of resident memory during the import less what was resident before it, over the
size of the file; the module that is returned holds one file's worth of it. Where `seconds` is well above `CPU seconds`,
other programs were running; the bounds are held against CPU seconds, since an import computes on one thread. Exit code
1 if a bound does not hold.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

MEMORY = 3.0  # times the file
WIDTH, LAYERS = 2048, 6  # 100.7 MB of float32


def resnet50(path: Path) -> None:
    """Torchvision's, random weights, by torch's older exporter: one file."""
    import torch
    from torchvision.models import resnet50 as make

    args = (torch.randn(1, 3, 224, 224),)
    torch.onnx.export(make(weights=None).eval(), args, str(path), dynamo=False, opset_version=17)


def wide(path: Path) -> None:
    """A perceptron of few large matrices, in one file."""
    import onnx

    onnx.save(_perceptron(WIDTH, LAYERS), path)


def apart(path: Path) -> None:
    """The same, its data in a file beside."""
    import onnx

    onnx.save(_perceptron(WIDTH, LAYERS), path, save_as_external_data=True, location=f"{path.name}.data")


def deep(path: Path) -> None:
    """A perceptron of many matrices: as many bytes, 2,000 nodes."""
    import onnx

    onnx.save(_perceptron(158, 1000), path)


# Name -> how it is written, and the seconds that it may take.
FILES: dict[str, tuple[Callable[[Path], None], float]] = {
    "resnet50": (resnet50, 2.0),
    "wide": (wide, 10.0),
    "wide, data apart": (apart, 10.0),
    "deep": (deep, 10.0),
}


def _perceptron(width: int, layers: int) -> Any:
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for k in range(layers):
        weight = (random.standard_normal((width, width)) / width**0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"layer{k}.weight"))
        nodes.append(helper.make_node("Gemm", [value, f"layer{k}.weight"], [f"sum{k}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"sum{k}"], [value := f"value{k}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", value)]
    graph = helper.make_graph(nodes, "perceptron", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _resident() -> int:
    """Bytes resident now; where the system does not tell, the most so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return _most()


def _most() -> int:
    """The most bytes that were resident. For getrusage, Linux counts what the parent had when it started a process."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def child(path: Path, tiny: Path) -> dict[str, float]:
    """Import a file; runs in its own process."""
    import torch

    import pcgraph

    torch.set_num_threads(1)
    begin = time.perf_counter()
    pcgraph.from_onnx(tiny)
    first = time.perf_counter() - begin
    before = _resident()
    begin, cpu = time.perf_counter(), time.process_time()
    module = pcgraph.from_onnx(path)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    grown = _most() - before
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    return {"first": first, "seconds": seconds, "CPU seconds": cpu, "bytes": grown, "parameters": parameters}


def measure(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Medians of some rounds."""
    path, tiny = folder / f"{name.replace(', ', '-').replace(' ', '-')}.onnx", folder / "tiny.onnx"
    if not tiny.exists():
        import onnx

        onnx.save(_perceptron(4, 1), tiny)
    FILES[name][0](path)
    size = sum(part.stat().st_size for part in folder.glob(f"{path.name}*"))
    command = [sys.executable, __file__, "--child", str(path), str(tiny)]
    runs = []
    for _ in range(rounds):
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        runs.append(json.loads(answer.splitlines()[-1]))
    found: dict[str, Any] = {key: median(run[key] for run in runs) for key in runs[0]}
    return {"file": name, "size": size, "bound": FILES[name][1], "rounds": rounds, **found}


def holds(result: dict[str, Any]) -> bool:
    """Whether both bounds do."""
    return result["CPU seconds"] < result["bound"] and result["bytes"] < MEMORY * result["size"]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| file | MB | first, s | seconds | CPU seconds | at most | memory / file | at most | |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for r in results:
        lines.append(
            f"| {r['file']} | {r['size'] / 1e6:.1f} | {r['first']:.2f} | {r['seconds']:.2f} | {r['CPU seconds']:.2f} | "
            f"{r['bound']:.0f} | {r['bytes'] / r['size']:.2f} | {MEMORY:.0f} | {'holds' if holds(r) else 'FAILS'} |"
        )
    return "\n".join(lines)


def write(path: Path, results: list[dict[str, Any]]) -> None:
    """Put the table, and where it was measured, between its marks in a page."""
    from importlib.metadata import version

    from pcgraph.bench.report import write_between

    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnx_ir"))
    where = f"{platform.system()} {platform.machine()}, one thread of {os.cpu_count()} cores"
    when = f"{datetime.date.today().isoformat()}, medians of {results[0]['rounds']} imports"
    head = f"Written by `benchmarks/bench_onnx.py`: {packages}; {where}; {when}."
    write_between(path, "bench_onnx", "\n".join([head, "", table(results)]))


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds and memory of importing ONNX files")
    parser.add_argument("--files", nargs="+", choices=list(FILES), default=list(FILES), metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between its marks in this Markdown")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        print(json.dumps(child(*options.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = [measure(name, Path(folder), options.rounds) for name in options.files]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    print(table(results))
    if options.write:
        write(options.write, results)
    if not all(holds(result) for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
