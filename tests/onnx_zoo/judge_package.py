"""A file that a package ships: against onnxruntime, and its gradients against differences of the loss."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph
from tests.onnx_zoo import light, writing
from tests.onnx_zoo.judgement import Judgement, Report, Verdict, judged
from tests.onnx_zoo.packages import Shipped
from tests.onnx_zoo.row import Row, Status
from tests.onnx_zoo.runtime import Runtime, outputs
from tests.onnx_zoo.wide import doubled, widened
from tests.zoos.specimen import random_weighting, seed_all

SLOPE = 1e-4  # relative error of a slope against the gradient
STEPS = tuple(10.0**-k for k in range(7, 17))  # of the parameters along the gradient, over their size
SETTLED = 1e-6  # relative difference of the slopes at two steps, below which no finer one is tried


def judge(file: Shipped, files: Path | None, kept: Path, report: Report = lambda stage: None) -> Row:
    """Judge a file, if it is there.

    Args:
        file: which.
        files: folder of unpacked wheels.
        kept: folder for files that are made here.
        report: told each stage as it begins.
    """
    row = Row("packages", file.name, Status.PASSED, origin=file.source)
    path = file.locate(files)
    if path is None:
        row.status, row.message = Status.NOT_RUN, "file not available"
        return row
    if file.package == "onnx":
        path = _filled(path, kept)
    return judged(row, path, report, lambda trial: _judge(file, trial))


def _filled(path: Path, kept: Path) -> Path:
    import onnx

    made = kept / path.name
    if not made.exists():
        kept.mkdir(parents=True, exist_ok=True)
        onnx.save(light.filled(path), made)
    return made


def _judge(file: Shipped, trial: Judgement) -> None:
    trial.report("running onnxruntime")
    calls = {f"batch {batch}": _call(file, batch, seed=batch) for batch in file.batches}
    try:
        runtime = Runtime(trial.path)
        for args in calls.values():
            runtime(*args)
    except Exception as error:
        raise Verdict(Status.UNFIT, error) from error
    if runtime.names != list(file.inputs):
        raise Verdict(Status.UNFIT, f"the file's inputs are {runtime.names}")
    written = writing.tensors(trial.describe())
    trial.row.original = len(written), sum(t.numel() for t in written.values())
    if not hasattr(pcgraph, "from_onnx"):
        trial.row.status = Status.CORPUS
        return
    if file.refusal:
        _refused(file, trial)
        return
    module = trial.load(**file.options)
    trial.provenance(module, written)
    trial.values(module, runtime, calls)
    trial.report("differences of the loss")
    first = calls[f"batch {file.batches[0]}"]
    _learns(trial, module, first)
    trial.compiled(module, lambda seed: _call(file, file.batches[0], seed))
    trial.round_trip(module, first)


def _refused(file: Shipped, trial: Judgement) -> None:
    try:
        trial.load(**file.options)
    except Verdict as verdict:
        known = verdict.status is Status.REFUSED and file.refusal in verdict.message
        raise Verdict(Status.REFUSED if known else Status.FAILED, verdict.message) from verdict
    trial.require(False, f"imported, and was to be refused as {file.refusal}")


def _call(file: Shipped, batch: int, seed: int) -> tuple[Tensor, ...]:
    seed_all(seed)
    return tuple(make(batch) for make in file.inputs.values())


def _learns(trial: Judgement, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    """Gradients are finite; in float64, the loss changes along the gradient as the gradient says."""
    gradients = _gradients(copy.deepcopy(module), args)
    trial.row.compared = len(gradients)
    trial.require(bool(gradients), "no parameter has a gradient")
    broken = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
    trial.require(not broken, f"gradients are not finite: {', '.join(broken[:5])}")
    try:
        error = _slope(widened(module), doubled(args))
    except Exception as cause:
        trial.row.notes.append(f"no float64: {type(cause).__name__}: {cause}".split("\n")[0][:200])
        return
    trial.row.gradient = 0.0, error, len(gradients)
    trial.require(error <= SLOPE, f"the loss changes along the gradient otherwise than the gradient says: {error:.1e}")


def _loss(module: nn.Module, args: tuple[Any, ...]) -> Tensor:
    return random_weighting(tuple(outputs(module(*args))))


def _gradients(module: nn.Module, args: tuple[Any, ...]) -> dict[str, Tensor]:
    _loss(module, args).backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def _slope(module: nn.Module, args: tuple[Any, ...]) -> float:
    """The relative error of the slope (L(p + h g) - L(p - h g)) / 2h against the square of g.

    A step h can be too large, where a rectifier has its kink or a logarithm its bend within, or so small that rounding
    is all that is left, and which ones are depends on the file. So h shrinks, and the slope that counts is the one that
    differs least from that at the step before: of its trustworthiness the slopes alone decide, not the gradient.
    """
    gradients = _gradients(module, args)
    parameters = {name: p for name, p in module.named_parameters() if name in gradients}
    start = {name: p.detach().clone() for name, p in parameters.items()}
    square = sum(float((g * g).sum()) for g in gradients.values())
    size = math.sqrt(sum(float((p * p).sum()) for p in start.values()))
    if square == 0:
        return float("inf")

    def loss(step: float) -> float:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(start[name] + step * gradients[name])
        return float(_loss(module, args).detach())

    slopes: list[float] = []
    least, best = float("inf"), 0.0
    for step in STEPS:
        h = step * size / math.sqrt(square)
        slopes.append((loss(h) - loss(-h)) / (2 * h))
        if len(slopes) > 1:
            change = abs(slopes[-1] - slopes[-2]) / max(abs(slopes[-1]), abs(slopes[-2]), 1e-300)
            if change < least:
                least, best = change, slopes[-1]
            if least < SETTLED:
                break
    return abs(best - square) / square
