"""An export of a torch model: against onnxruntime, and its gradients against the torch model's."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph
from tests.onnx_zoo import writing
from tests.onnx_zoo.exports import JUDGED, Export
from tests.onnx_zoo.judgement import FORWARD, WIDE, Judgement, Report, Verdict, judged
from tests.onnx_zoo.matching import Account, Fused, Parameters, Place, fusible
from tests.onnx_zoo.row import Row, Status
from tests.onnx_zoo.runtime import Runtime, apart, evaluated, outputs
from tests.onnx_zoo.wide import doubled, widened, widened_file
from tests.zoos.specimen import random_weighting

GRADIENT = 1e-4  # relative to the largest entry of the gradient
# A gradient whose largest entry is less than this share of the largest of all is rounding: the bias of attention's keys
# is one, zero in truth. In float64, where so much less is rounding, it is judged all the same.
# 1e-4 of 1e-10 is 45 units of float64's own rounding.
LEAST = {torch.float32: 1e-6, torch.float64: 1e-10}
UNCLEAR = 0.01  # share of a parameter's entries that may be unclear, since another entry has the same bits
CLOSE = 1e-5  # how near a fused weight is to what is computed here


def judge(export: Export, folder: Path, report: Report = lambda stage: None) -> Row:
    """Write the file (unless it is there), and judge it.

    Args:
        export: what is exported, and how.
        folder: of the files.
        report: told each stage as it begins.
    """
    row = Row("exports", export.name, Status.PASSED)
    row.origin = f"{'torch.export, dynamo=True' if export.dynamo else 'tracing, dynamo=False'}"
    path = folder / f"{export.name}.onnx"
    return judged(row, path, report, lambda trial: _judge(export, trial))


def _judge(export: Export, trial: Judgement) -> None:
    trial.report("building")
    model = export.build()
    parameters = dict(model.named_parameters())
    trial.row.original = len(parameters), sum(p.numel() for p in parameters.values())
    calls = {f"batch {batch}": export.call(batch, seed=batch) for batch in JUDGED}
    runtime = _written(export, model, calls, trial)
    written = writing.tensors(trial.describe())
    if not hasattr(pcgraph, "from_onnx"):
        trial.row.status = Status.CORPUS
        return
    module = trial.load()
    trial.provenance(module, written)
    trial.values(module, runtime, calls)
    trial.report("comparing gradients")
    _Gradients(trial, model, module, written, calls[f"batch {JUDGED[0]}"]).judge()
    trial.compiled(module, lambda seed: export.call(JUDGED[0], seed))
    trial.round_trip(module, calls[f"batch {JUDGED[1]}"])


def _written(export: Export, model: nn.Module, calls: dict[str, tuple[Tensor, ...]], trial: Judgement) -> Runtime:
    """The file in onnxruntime, which computes what torch computes."""
    if not trial.path.exists():
        trial.report("exporting")
        trial.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                writing.write(export, copy.deepcopy(model), trial.path)
        except Exception as error:
            raise Verdict(Status.UNFIT, error) from error
    trial.report("running onnxruntime")
    try:
        runtime = Runtime(trial.path)
        for label, args in calls.items():
            with torch.no_grad():
                theirs = outputs(copy.deepcopy(model)(*args))
            trial.row.exported[label] = apart(runtime(*args), theirs)
    except Exception as error:
        raise Verdict(Status.UNFIT, error) from error
    worst = max(trial.row.exported.values())
    if worst > FORWARD:
        wide = _wide(model, trial.path, next(iter(calls.values())))
        if not wide <= WIDE:
            raise Verdict(
                Status.UNFIT, f"onnxruntime computes {worst:.1e} from torch, the file in float64 is {wide:.1e} off"
            )
    return runtime


def _wide(model: nn.Module, path: Path, args: tuple[Tensor, ...]) -> float:
    """How far the file is from the model in float64, where onnxruntime's rounding is none; nan if nobody can tell."""
    try:
        with torch.no_grad():
            true = outputs(copy.deepcopy(model).double()(*doubled(args)))
        return apart(evaluated(widened_file(path), doubled(args)), true)
    except Exception:
        return float("nan")


class _Gradients:
    """The gradients of the imported module, told apart by the entries of its parameters, against the model's."""

    def __init__(
        self,
        trial: Judgement,
        model: nn.Module,
        module: Any,
        written: dict[str, Tensor],
        args: tuple[Tensor, ...],
    ) -> None:
        self.trial, self.model, self.module, self.args = trial, model, module, args
        self.known = Parameters(dict(model.named_parameters()))
        self.mine = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.places = {name: self.known.find(parameter) for name, parameter in self.mine.items()}
        self.written = written
        self.fusible = [] if model.training else fusible(copy.deepcopy(model), args)
        self.account = Account()
        self.worst = {torch.float32: 0.0, torch.float64: 0.0}
        self.wide = self.compared = 0

    @functools.cached_property
    def in_file(self) -> dict[str, Tensor]:
        """Which entries of every parameter stand in the file; looked up only if an import lacks some."""
        flags = torch.zeros(self.known.total, dtype=torch.bool)
        for tensor in self.written.values():
            _mark(flags, self.known.find(tensor))
        return self.known.split(flags)

    def judge(self) -> None:
        """Compare, and account for every parameter."""
        wanted = {dtype: _learned(copy.deepcopy(self.model), self.args, dtype) for dtype in LEAST}
        given = {torch.float32: _learned(copy.deepcopy(self.module), self.args, torch.float32)}
        try:
            given[torch.float64] = _learned(widened(self.module), self.args, torch.float64)
        except Exception as error:
            self.trial.row.notes.append(f"no float64: {type(error).__name__}: {error}".split("\n")[0][:200])
        fused = self._fused()
        self._matched(given, wanted)
        self._unmatched(given, wanted, fused)
        for k, gradient in enumerate(wanted[torch.float32].inputs):
            pairs = {d: (given[d].inputs[k], wanted[d].inputs[k]) for d in given}
            if gradient is not None:
                self._compare(f"input {k}", pairs, wanted)
        row, account = self.trial.row, self.account
        row.fused, row.folded, row.untied = account.fused, account.folded, account.untied
        row.lost, row.extra = account.lost, account.extra
        row.compared = self.compared
        row.gradient = self.worst[torch.float32], self.worst[torch.float64] if len(given) > 1 else None, self.wide
        origins = self.module.provenance.origins
        row.named = sum(name in origins and origins[name].initializer in self.known.tensors for name in self.mine)
        for text, names in (
            ("in the file, but not trained", account.lost),
            ("no parameter of the model", account.extra),
        ):
            self.trial.require(not names, f"{text}: {', '.join(names)}")

    def _matched(self, given: dict[torch.dtype, _Learned], wanted: dict[torch.dtype, _Learned]) -> None:
        """Parameters of the model, with the gradients of all imported parameters that hold entries of theirs summed."""
        sums = {dtype: torch.zeros(self.known.total, dtype=torch.float64) for dtype in given}
        covered, twice = (
            torch.zeros(self.known.total, dtype=torch.bool),
            torch.zeros(self.known.total, dtype=torch.bool),
        )
        for name, place in self.places.items():
            if place is None:
                continue
            entries = place.entries.reshape(-1)
            clear = entries >= 0
            for dtype, learned in given.items():
                gradient = learned.parameters[name]
                if gradient is not None:
                    sums[dtype].index_add_(0, entries[clear], gradient.reshape(-1)[clear].double())
            here = torch.zeros_like(covered)
            _mark(here, place)
            twice |= covered & here
            covered |= here
        by_name = {dtype: self.known.split(flat) for dtype, flat in sums.items()}
        has, doubled = self.known.split(covered), self.known.split(twice)
        fused = {name for found in self.fusible for name in self._names(found)} & set(self.account.fused)
        for name in self.known.tensors:
            if bool(doubled[name].any()):
                self.account.untied.append(name)
            if bool(has[name].any()):
                mask = has[name]
                pairs = {
                    d: (by_name[d][name][mask], wanted[d].parameters[name].double()[mask])
                    for d in given
                    if wanted[d].parameters[name] is not None
                }
                if pairs:
                    self._compare(name, pairs, wanted)
            gradient = wanted[torch.float32].parameters[name]
            learns = torch.zeros_like(has[name]) if gradient is None else gradient != 0
            missing = learns & ~has[name]
            if int(missing.sum()) > UNCLEAR * has[name].numel() and name not in fused:
                lost = int((missing & self.in_file[name]).sum()) > UNCLEAR * has[name].numel()
                (self.account.lost if lost else self.account.folded).append(name)
            elif not bool(learns.any()) and not bool(has[name].any()) and name not in fused:
                self.account.folded.append(f"{name} (learns nothing)")

    def _fused(self) -> dict[str, tuple[Fused, str]]:
        """Imported parameters that are weight or bias of a fused convolution."""
        found: dict[str, tuple[Fused, str]] = {}
        for name, place in self.places.items():
            if place is not None:
                continue
            for fused in self.fusible:
                for kind, tensor in (("weight", fused.weight), ("bias", fused.bias)):
                    mine = self.mine[name].detach()
                    if mine.shape == tensor.shape and apart([mine], [tensor]) <= CLOSE:
                        found[name] = fused, kind
                        self.account.fused += [n for n in self._names(fused) if n not in self.account.fused]
        return found

    def _names(self, fused: Fused) -> list[str]:
        names = [
            f"{fused.convolution}.weight",
            f"{fused.convolution}.bias",
            f"{fused.norm}.weight",
            f"{fused.norm}.bias",
        ]
        return [name for name in names if name in self.known.tensors]

    def _unmatched(
        self,
        given: dict[torch.dtype, _Learned],
        wanted: dict[torch.dtype, _Learned],
        fused: dict[str, tuple[Fused, str]],
    ) -> None:
        """Fused parameters, by the chain rule; what is left is no parameter of the model."""
        for name, place in self.places.items():
            if place is not None:
                continue
            if name not in fused:
                self.account.extra.append(f"{name} {list(self.mine[name].shape)}")
                continue
            found, kind = fused[name]
            pairs = {}
            for dtype in given:
                theirs = wanted[dtype].parameters
                if kind == "weight":  # w = s v, so that dL/dw = dL/dv / s
                    gradient = theirs[f"{found.convolution}.weight"].double() / found.scale.double()
                else:  # b = beta + ...
                    gradient = theirs[f"{found.norm}.bias"].double()
                pairs[dtype] = given[dtype].parameters[name].double(), gradient
            self._compare(name, pairs, wanted)

    def _compare(
        self, name: str, pairs: dict[torch.dtype, tuple[Tensor, Tensor]], wanted: dict[torch.dtype, _Learned]
    ) -> None:
        """A gradient passes in float32, or, where that is mostly rounding, in float64."""
        self.compared += 1
        errors = {}
        for dtype, (mine, theirs) in pairs.items():
            scale = max(float(theirs.abs().max()), LEAST[dtype] * wanted[dtype].largest)
            errors[dtype] = float((mine.double() - theirs.double()).abs().max()) / scale if scale else 0.0
            if errors[dtype] != errors[dtype]:
                errors[dtype] = float("inf")
        narrow, wide = errors[torch.float32], errors.get(torch.float64)
        if wide is not None:
            self.worst[torch.float64] = max(self.worst[torch.float64], wide)
        if narrow <= GRADIENT:
            self.worst[torch.float32] = max(self.worst[torch.float32], narrow)
            return
        self.wide += 1
        text = f"gradient of {name}: {narrow:.1e}" + ("" if wide is None else f", in float64 {wide:.1e}")
        self.trial.require(wide is not None and wide <= GRADIENT, text)


def _mark(flags: Tensor, place: Place | None) -> None:
    if place is not None:
        entries = place.entries.reshape(-1)
        flags[entries[entries >= 0]] = True


class _Learned:
    """Gradients of one step.

    Attributes:
        parameters, inputs: gradients; None where there is none.
        largest: entry of all of them.
    """

    def __init__(self, parameters: dict[str, Tensor | None], inputs: list[Tensor | None]) -> None:
        self.parameters, self.inputs = parameters, inputs
        self.largest = max((float(g.abs().max()) for g in parameters.values() if g is not None), default=0.0)


def _learned(module: nn.Module, args: tuple[Tensor, ...], dtype: torch.dtype) -> _Learned:
    module = module.to(dtype)
    args = tuple(a.detach().clone().to(dtype).requires_grad_() if a.is_floating_point() else a for a in args)
    random_weighting(tuple(outputs(module(*args)))).backward()
    parameters = {name: p.grad for name, p in module.named_parameters()}
    return _Learned(parameters, [a.grad for a in args])
