"""One model, from building it to the verdict: plain autograd twice, then the compiled network."""

from __future__ import annotations

import copy
import datetime
import platform
import subprocess
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph
from tests.zoos.observe import Gap, Seen, gap, step
from tests.zoos.row import Row, Status
from tests.zoos.specimen import Call, Specimen
from tests.zoos.trained import trained

# Relative differences up to which a gap is rounding: in float32, in float64, in float32 if float64 cannot be run.
ROUNDING = (1e-6, 1e-9, 1e-4)
LOOKUPS = 101
STEPS = (11, 12)  # seeds of the two steps; the arguments are other random numbers in each


def judge(specimen: Specimen, report: Callable[[str], None] = lambda stage: None) -> Row:
    """Build, train plainly, train compiled, compare.

    Args:
        specimen: the model.
        report: told each stage as it begins, for whoever must end this process if it takes too long.
    """
    row = Row(specimen.library, specimen.name, Status.BITWISE, versions=versions(specimen.package or specimen.library))
    start = time.perf_counter()
    warnings.simplefilter("ignore")
    try:
        _judge(specimen, row, report)
    except _Verdict as verdict:
        row.status, row.message, row.traceback = verdict.status, verdict.message, verdict.traceback
    row.seconds = round(time.perf_counter() - start, 2)
    row.date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return row


class _Verdict(Exception):
    """The end of a judgement."""

    def __init__(self, status: Status, cause: BaseException | str) -> None:
        self.status = status
        known = isinstance(cause, (str, pcgraph.PCGraphError))
        self.message = str(cause) if known else f"{type(cause).__name__}: {cause}"
        self.traceback = "" if known else "".join(traceback.format_exception(cause)[-8:])


def _judge(specimen: Specimen, row: Row, report: Callable[[str], None]) -> None:
    report("building")
    try:
        model = specimen.build()
        specimen.call(0)
    except Exception as error:
        raise _Verdict(Status.UNBUILT, error) from error
    row.parameters = sum(p.numel() for p in model.parameters())
    try:
        _train(specimen, model, row, report)
    except _Verdict as verdict:
        if verdict.status is not Status.REFUSED or specimen.simpler is None:
            raise
        row.simpler = verdict.message
        _train(specimen, specimen.simpler(model), row, report)


def _train(specimen: Specimen, model: nn.Module, row: Row, report: Callable[[str], None]) -> None:
    report("training plainly")
    call = _arguments(specimen, model, row)
    plain = _plain(specimen, model, call)
    row.plain = round(plain[-1].seconds, 3)
    row.moving = _moving(plain[0])

    report("training compiled")
    try:
        compiled = _compiled(specimen, model, call, row)
    except Exception as error:
        status = Status.REFUSED if isinstance(error, pcgraph.PCGraphError) else Status.FAILED
        raise _Verdict(status, error) from error

    gaps = [gap(one, two) for one, two in zip(plain, compiled, strict=True)]
    row.differing = (sum(len(g.names) for g in gaps), sum(g.compared for g in gaps))
    if any(g.names for g in gaps):
        report("training in float64")
        _differs(specimen, model, call, row, gaps)
    if specimen.batch is not None:
        report("training with optimizers")
        try:
            row.checks, wrong = trained(specimen, model, call)
        except Exception as error:
            status = Status.REFUSED if isinstance(error, pcgraph.PCGraphError) else Status.FAILED
            raise _Verdict(status, error) from error
        if wrong:
            raise _Verdict(Status.WRONG, "\n".join(wrong))


def _arguments(specimen: Specimen, model: nn.Module, row: Row) -> Callable[..., Call]:
    """Arguments that ask for gradients, unless the model cannot be trained on such arguments."""
    try:
        step(*_same(copy.deepcopy(model)), specimen.call(STEPS[0]), specimen.loss, STEPS[0])
    except Exception as error:
        row.notes.append(f"inputs without gradients: {type(error).__name__}: {error}".split("\n")[0][:200])
        return lambda seed, **options: specimen.call(seed, needs_grad=False, **options)
    return specimen.call


def _same(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    return model, model


def _plain(specimen: Specimen, model: nn.Module, call: Callable[[int], Call]) -> list[Seen]:
    """Both steps by plain autograd, if two runs of them agree and there is something to learn."""
    runs = []
    for _ in range(2):
        twin = copy.deepcopy(model)
        try:
            runs.append([step(twin, twin, call(seed), specimen.loss, seed) for seed in STEPS])
        except Exception as error:
            raise _Verdict(Status.UNTRAINABLE, error) from error
    for one, two in zip(*runs, strict=True):
        if names := gap(one, two).names:
            raise _Verdict(Status.NONDETERMINISTIC, f"{len(names)} values differ from run to run; {names[0]}")
    if not all(bool(seen.values["loss"].isfinite()) for seen in runs[0]):
        raise _Verdict(Status.UNTRAINABLE, "the loss is not finite")
    if not _moving(runs[0][0]):
        raise _Verdict(Status.UNTRAINABLE, "no parameter has a gradient other than zero")
    return runs[0]


def _compiled(specimen: Specimen, model: nn.Module, call: Callable[[int], Call], row: Row) -> list[Seen]:
    """Both steps by a compiled copy; what is known of the network goes into the row, even if the second step fails."""
    twin = copy.deepcopy(model)
    network = pcgraph.compile(twin)
    seen = []
    for seed in STEPS:
        start = time.perf_counter()
        seen.append(step(network, twin, call(seed), specimen.loss, seed))
        seconds = round(time.perf_counter() - start, 3)
        if seed == STEPS[0]:
            summary = network.graph.summary()
            row.vertices, row.steps, row.first = summary["vertices"], summary["steps"], seconds
            row.capture = round(network.timings["total"], 3)
            operations = [v.operation for v in network.graph.vertices.values() if v.operation is not None]
            row.opaque = dict(Counter(f.opaque.split("\n")[0][:200] for f in operations if f.opaque))
        row.second = seconds
        row.once = [str(reason)[:300] for reason in network.cache_info()["once"]]
    captures = network.cache_info()["captures"]
    if captures > 1 and not row.once:
        row.notes.append(f"captured {captures} times in two calls")
    if not row.once:
        row.lookup = _lookup(network, call(STEPS[-1]))
    return seen


def _lookup(network: pcgraph.PCNetwork, given: Call) -> float:
    """The median of what a call spends before the compiled program, in microseconds."""
    (args, kwargs), seconds = given, []
    for _ in range(LOOKUPS):
        start = time.perf_counter()
        found = network._find(network._signatures.of(args, kwargs))
        seconds.append(time.perf_counter() - start)
        if found is None:
            return 0.0
    return round(median(seconds) * 1e6, 1)


def _differs(specimen: Specimen, model: nn.Module, call: Callable[[int], Call], row: Row, gaps: list[Gap]) -> None:
    """Rounding or wrong? In float64, rounding all but vanishes."""
    relative = max(g.relative for g in gaps)
    wide = None
    if relative < float("inf"):
        try:
            wide = _relative(specimen, model, call, _to_double)
            if not _relative(specimen, model, call, onednn=False):
                row.notes.append("bitwise with oneDNN off")
        except Exception as error:
            row.notes.append(f"no float64: {type(error).__name__}: {error}".split("\n")[0][:200])
    row.relative = (relative, wide)
    narrow_limit, wide_limit, lone_limit = ROUNDING
    rounding = relative <= lone_limit if wide is None else relative <= narrow_limit or wide <= wide_limit
    first = [f"step {k + 1}: {name}" for k, g in enumerate(gaps) for name in g.names[:3]]
    raise _Verdict(Status.CLOSE if rounding else Status.WRONG, "\n".join(first))


def _relative(
    specimen: Specimen,
    model: nn.Module,
    call: Callable[[int], Call],
    cast: Callable[[Any], Any] = lambda tree: tree,
    *,
    onednn: bool = True,
) -> float:
    """The relative difference, in another type or without oneDNN, whose fused recurrent kernels round differently."""
    seen = []
    (enabled, *_) = torch.backends.mkldnn.set_flags(_enabled=onednn)
    try:
        for compile in (lambda twin: twin, pcgraph.compile):
            twin = cast(copy.deepcopy(model))
            network = compile(twin)
            seen.append([step(network, twin, cast(call(seed)), specimen.loss, seed) for seed in STEPS])
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)
    return max(gap(one, two).relative for one, two in zip(*seen, strict=True))


def _to_double(tree: Any) -> Any:
    if isinstance(tree, nn.Module):
        return tree.double()
    if isinstance(tree, Tensor) and tree.is_floating_point():
        return tree.detach().double().requires_grad_(tree.requires_grad)
    if isinstance(tree, dict):
        return {key: _to_double(value) for key, value in tree.items()}
    return type(tree)(map(_to_double, tree)) if isinstance(tree, (list, tuple)) else tree


def _moving(seen: Seen) -> float:
    """Share of the parameters' gradients that are not all zero."""
    given = [
        bool(value.any()) if not value.is_sparse else True
        for name, value in seen.values.items()
        if name.startswith("gradient of ") and not name.startswith("gradient of argument") and value is not None
    ]
    return round(sum(given) / len(given), 3) if given else 0.0


def versions(library: str) -> dict[str, str]:
    """Of everything that matters to a result."""
    found = {"python": platform.python_version(), "torch": torch.__version__, library: version(library)}
    folder = Path(pcgraph.__file__).parent
    commit = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {**found, "pcgraph": f"{pcgraph.__version__} {commit}".strip()}
