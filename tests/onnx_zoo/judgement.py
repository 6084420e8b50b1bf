"""What is judged of every file alike: import, values, compiled training, the way back."""

from __future__ import annotations

import copy
import datetime
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph
from tests.onnx_zoo import writing
from tests.onnx_zoo.row import Row, Status
from tests.onnx_zoo.runtime import Runtime, apart, evaluated, outputs
from tests.onnx_zoo.wide import doubled, widened_file
from tests.zoos.judge import judge as judge_compiled
from tests.zoos.judge import versions
from tests.zoos.row import Status as Compiled
from tests.zoos.specimen import Specimen, random_weighting

FORWARD = 1e-5  # relative to the largest entry of the output
# The same in float64. An attribute of the file is a float32 even there, of which the import takes the shortest decimal;
# and the evaluator's Erf gives float32. Both are some 3e-8, and may become ten times as much of a small sigmoid.
WIDE = 1e-6
WRITTEN = ("onnx", "onnx-ir", "onnxruntime", "onnxscript", "torchvision", "transformers", "timm")
ONEDNN = "bitwise with oneDNN off"  # a note of the judge of zoos

Report = Callable[[str], None]
Call = Callable[[int], tuple[Tensor, ...]]  # seed -> arguments


class Verdict(Exception):
    """The end of a judgement."""

    def __init__(self, status: Status, cause: BaseException | str) -> None:
        self.status = status
        known = isinstance(cause, (str, pcgraph.PCGraphError))
        self.message = str(cause) if known else f"{type(cause).__name__}: {cause}"
        self.traceback = "" if known else "".join(traceback.format_exception(cause)[-8:])


@dataclass
class Judgement:
    """One file on trial.

    Attributes:
        row: what is known of it.
        path: of the file.
        report: told each stage as it begins.
        problems: everything that does not hold.
        alone: which of them onnxruntime has alone, see `_against`.
        options: that the file was imported with.
    """

    row: Row
    path: Path
    report: Report
    problems: list[str]
    alone: set[str] = field(default_factory=set)
    options: dict[str, Any] = field(default_factory=dict)

    def require(self, holds: bool, text: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.problems.append(text)

    def describe(self) -> Any:
        """Note what is in the file; returns its proto, data included."""
        import onnx

        proto = onnx.load(self.path)
        self.row.opsets = {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import}
        self.row.nodes, self.row.bytes = writing.nodes(proto.graph), writing.size(self.path)
        return proto

    def load(self, **options: Any) -> Any:
        """Import the file, and time it.

        Raises:
            Verdict: pcgraph refuses it, or fails.
        """
        self.report("importing")
        self.options = options
        start = time.perf_counter()
        try:
            module = pcgraph.from_onnx(self.path, **options)
        except Exception as error:
            raise Verdict(
                Status.REFUSED if isinstance(error, pcgraph.PCGraphError) else Status.FAILED, error
            ) from error
        self.row.importing = round(time.perf_counter() - start, 3)
        parameters = [p for p in module.parameters() if p.requires_grad]
        self.row.imported = len(parameters), sum(p.numel() for p in parameters)
        return module

    def provenance(self, module: Any, written: dict[str, Tensor]) -> None:
        """Every parameter is what its origin says: this initializer, after these steps."""
        origins = module.provenance.origins
        for name, parameter in module.named_parameters():
            if name not in origins:
                self.problems.append(f"provenance: {name} has no origin")
                continue
            tensor = written.get(origins[name].initializer)
            if tensor is None:
                self.problems.append(f"provenance: {name} comes from {origins[name].initializer!r}, not in the file")
                continue
            for step in origins[name].steps:
                tensor = step(tensor)
            same = tensor.shape == parameter.shape and torch.equal(tensor, parameter.detach())
            self.require(same, f"provenance: {name} is not {origins[name].initializer!r} after its steps")

    def values(self, module: nn.Module, runtime: Runtime, calls: dict[str, tuple[Tensor, ...]]) -> None:
        """The import computes what onnxruntime computes, for every set of arguments."""
        self.report("comparing with onnxruntime")
        for label, args in calls.items():
            with torch.no_grad():
                try:
                    mine = outputs(copy.deepcopy(module)(*args))
                except Exception as error:
                    raise Verdict(Status.FAILED, error) from error
            self.row.forward[label] = self._against(f"forward at {label}", self.path, mine, args, runtime)

    def _against(self, what: str, path: Path, mine: list[Tensor], args: tuple[Tensor, ...], runtime: Runtime) -> float:
        """Distance of onnxruntime; where it is too far, which of the two is nearer to what the file means.

        onnxruntime's sigmoid is off by up to 5e-8 whatever its value, which is much of a small one, and all of one that
        is smaller; and where a logarithm is taken of small numbers, float32 itself is that far off. So the file is told
        in float64: there onnx's reference evaluator, which shares no code with either, and the import must agree to
        `WIDE`, and the module in float32 must be as near to them as it should be to onnxruntime, or nearer than that.
        """
        theirs = runtime(*args)
        error = apart(mine, theirs)
        if error <= FORWARD:
            return error
        text, alone = f"{what}: {error:.1e} from onnxruntime", False
        try:
            model = widened_file(path)
            true = evaluated(model, doubled(args))
            with torch.no_grad():
                wide = outputs(pcgraph.from_onnx(model, **self.options)(*doubled(args)))
            ours, its = ([t.to(w.dtype) for t, w in zip(side, true, strict=True)] for side in (mine, theirs))
            same, near, far = apart(wide, true), apart(ours, true), apart(its, true)
            text += f"; from onnx's reference evaluator in float64: the module {near:.1e}, onnxruntime {far:.1e}"
            text += f", the import in float64 {same:.1e}"
            alone = same <= WIDE and near <= max(FORWARD, far)
        except Exception as cause:
            text += f"; in float64: {type(cause).__name__}: {str(cause).splitlines()[0][:100]}"
        self.problems.append(text)
        self.alone.update([text] if alone else [])
        return error

    def compiled(self, module: nn.Module, call: Call) -> None:
        """The compiled network learns what autograd learns on the imported module, to the bit.

        In evaluation mode; in training mode, too, if the module has parts that tell the modes apart.
        """
        both = any(isinstance(part, (nn.modules.batchnorm._NormBase, nn.Dropout)) for part in module.modules())
        for mode in ("eval", "train") if both else ("eval",):
            self.report(f"compiling, {mode}")
            cls = Specimen if mode == "train" else _Evaluated
            specimen = cls(
                "onnx",
                self.row.model,
                lambda: copy.deepcopy(module),
                lambda: (call(int(torch.randint(1 << 30, ()))), {}),
                lambda out: random_weighting(tuple(outputs(out))),
            )
            found = judge_compiled(specimen, self.report)
            # oneDNN's recurrent kernels round otherwise than ATen's, which pcgraph opens: the same computation.
            without = found.status is Compiled.CLOSE and ONEDNN in found.notes
            self.row.compiled[mode] = ONEDNN if without else str(found.status)
            if mode == "eval":
                self.row.vertices, self.row.steps, self.row.moving = found.vertices, found.steps, found.moving
            first = (found.message or "").split("\n")[0]
            self.require(found.status is Compiled.BITWISE or without, f"compiled in {mode}(): {found.status}: {first}")
            if found.traceback:
                self.row.traceback = found.traceback

    def round_trip(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """One step of learning, written back into the file: onnxruntime computes what the module computes."""
        if not hasattr(pcgraph, "to_onnx"):
            return
        self.report("writing back")
        module = copy.deepcopy(module).eval()
        before = outputs(module(*args))
        random_weighting(tuple(before)).backward()
        learned = [p for p in module.parameters() if p.grad is not None]
        scale = max((float(p.grad.abs().max()) for p in learned), default=0.0)
        with torch.no_grad():
            for parameter in learned:
                parameter -= parameter.grad * (0.01 / scale if scale else 0.0)
            after = outputs(copy.deepcopy(module)(*args))
        path = self.path.with_name(f"{self.path.stem}.trained.onnx")
        try:
            pcgraph.to_onnx(module, path)
            self.row.round_trip = self._against("written back", path, after, args, Runtime(path))
            own = _own_copies(path, module.provenance)
            self.require(
                _skeleton(path, own) == _skeleton(self.path), "written back: nodes or names are not the file's"
            )
            with torch.no_grad():
                again = outputs(pcgraph.from_onnx(path, **self.options)(*args))
            same = len(again) == len(after) and all(map(_identical, again, after))
            self.require(same, f"written back and imported again: {apart(again, after):.1e} from the module")
        except Exception as error:
            self.problems.append(f"written back: {type(error).__name__}: {error}")
            return
        finally:
            for part in (path, path.with_name(f"{path.name}.data")):
                part.unlink(missing_ok=True)
        moved = apart(after, [b.detach() for b in before])
        self.require(
            moved > 10 * FORWARD, f"written back: a step changed the output by {moved:.1e} only, so it tells nothing"
        )


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _own_copies(path: Path, provenance: Any) -> dict[str, str]:
    """Tensors of a written file that are copies for one operand: their names, and of what.

    Where the file has one tensor of zeros as the bias of many layers, each layer learns its own, and the file that is
    written needs as many. That is how `to_onnx` is meant to be; a copy that any other operand reads is not.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    makers = {output: node for node in graph.node for output in node.output}
    reads = Counter(name for node in graph.node for name in node.input)
    own = {}
    for origin in provenance.origins.values():
        node = makers.get(origin.use.output) if origin.use is not None else None
        if node is not None:
            name = node.input[origin.use.operand]
            if name != origin.initializer and reads[name] == 1:
                own[name] = origin.initializer
    return own


def _skeleton(path: Path, own: Mapping[str, str] = MappingProxyType({})) -> tuple[list[bytes], list[bytes], set[str]]:
    """What of a file must not change: its nodes, inputs and outputs, and the names of its initializers.

    Constants are nodes, and may hold what has been learned: their names count, and not what they hold.

    Args:
        path: of the file.
        own: names of copies that count as what they are copies of.
    """
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    nodes = list(graph.node)
    while nodes:
        node = nodes.pop()
        node.input[:] = [own.get(name, name) for name in node.input]
        if node.op_type == "Constant":
            del node.attribute[:]
        for inner in (graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)):
            nodes += inner.node  # of If, Loop and Scan
            for tensor in inner.initializer:
                name = tensor.name
                tensor.Clear()
                tensor.name = name
    ends = [value.SerializeToString(deterministic=True) for value in (*graph.input, *graph.output)]
    nodes = [node.SerializeToString(deterministic=True) for node in graph.node]
    return nodes, ends, {own.get(tensor.name, tensor.name) for tensor in graph.initializer}


class _Evaluated(Specimen):
    """A model in evaluation mode."""

    def build(self) -> nn.Module:
        return super().build().eval()


def judged(row: Row, path: Path, report: Report, judge: Callable[[Judgement], None]) -> Row:
    """Run a judgement to its end, whatever happens in it."""
    start = time.perf_counter()
    warnings.simplefilter("ignore")
    trial = Judgement(row, path, report, [])
    try:
        judge(trial)
    except Verdict as verdict:
        row.status, row.message, row.traceback = verdict.status, verdict.message, verdict.traceback
        row.message = "\n".join([row.message, *trial.problems])
    except Exception as error:
        row.status, row.message = Status.FAILED, f"{type(error).__name__}: {error}"
        row.traceback = "".join(traceback.format_exception(error)[-8:])
    else:
        if trial.problems:
            row.status = Status.APART if trial.alone.issuperset(trial.problems) else Status.WRONG
            row.message = "\n".join(trial.problems)
    row.seconds = round(time.perf_counter() - start, 2)
    row.versions = _versions()
    row.date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return row


def _versions() -> dict[str, str]:
    found = versions("onnx")
    for name in WRITTEN:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found
