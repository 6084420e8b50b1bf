"""One captured call, compiled: a program, the tensors it reads, and how to rebuild the return value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch

from ..codegen import Program, without_autocast
from ..errors import CaptureError
from ..graph import Ref, Role
from .binding import Binding
from .bridge import Wave
from .checkpoints import checkpointed
from .descent import Descents
from .held import adopt
from .run import Run

Marks = tuple[list[int], list[int]]
_version = attrgetter("_version")


class Compiled:
    """A program bound to the model's tensors.

    Args:
        program: the compiled prediction and learning.
        binding: where the values of its externals come from, and how its outputs form the return value.
        on_errors: called with the watched errors after every learning phase.
        stale: autograd's complaint if the model writes to a value that learning needs; raised when learning.
    """

    def __init__(
        self,
        program: Program,
        binding: Binding,
        on_errors: Callable[[dict[Ref, Any]], None],
        stale: str | None = None,
    ) -> None:
        self.program = program
        self.binding = binding
        self.stale = stale
        self.watch: tuple[Ref, ...] = ()
        self._on_errors = on_errors
        graph = program.graph
        outputs = range(len(graph.outputs))
        learning = {k for segment in program.outputs_of for k in segment}
        self._given = tuple(k for k in outputs if program.returned(graph.outputs[k]))
        self.plain = tuple(k for k in outputs if k not in learning and k not in self._given)
        place = {name: i for i, name in enumerate(program.externals)}
        self._given_places = [place[graph.outputs[k].vertex] for k in self._given]
        number = {ref: k for k, ref in enumerate(graph.outputs)}
        # What each segment hands errors to: the values of leaves below segment 0, outputs of lower segments elsewhere.
        self.sources = [
            [place[ref.vertex] if s == 0 else number[ref] for ref in ends] for s, ends in enumerate(program.ends)
        ]
        self._held = {item.output for item in binding.held}
        self.copied: list[bool] | None = None  # which gradients a step has to copy; None before the first one
        self.descents, self.inferring = Descents(), Descents()  # of Z-IL, and of inference learning
        self._leaves_behind = bool(binding.held or binding.changed or binding.woken)
        self._again = _read_again(program)
        self._checked: list[list[int]] | None = None
        self._shared: set[int] = set()  # outputs with an error that share memory with others

    @property
    def straight(self) -> bool:
        """Whether there is one output, of one segment, and nothing else that a call leaves with the caller."""
        simple = len(self.sources) == 1 and len(self.program.graph.outputs) == 1 and not self._given
        return simple and not (self._leaves_behind or self.plain or self.program.opaque or checkpointed())

    @property
    def first(self) -> bool:
        """Whether it is not known yet which saved values share memory with what the caller holds."""
        return self._checked is None

    # -- running -----------------------------------------------------------------------------------
    def __call__(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Predict, and be ready to learn."""
        if self._leaves_behind and checkpointed():
            raise CaptureError(
                "inside of a checkpoint, the model keeps a tensor that needs a gradient, or writes to an argument",
                where=next((item.where for item in self.binding.held), None),
                hint="compile a module that calls torch.utils.checkpoint itself, or pass use_reentrant=True",
            )
        for i in self.binding.woken:
            inputs[i].requires_grad_()
        values = self.binding.values(inputs)
        leaves = [values[i] for i in self.sources[0]]
        given = [values[i] for i in self._given_places]
        changed = [(values[i], k) for i, k in self.binding.changed]
        for i, _ in self.binding.changed:
            values[i] = values[i].detach().clone()
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            with without_autocast():
                outputs = self._predict(values, leaves)
        else:
            outputs = self._predict(values, leaves)
        for k, value in zip(self._given, given, strict=True):
            outputs[k] = value
        for tensor, k in changed:
            outputs[k] = tensor.copy_(outputs[k])
        if self.binding.held:
            adopt(self.binding.held, outputs, inputs)
        return self.binding.rebuild(outputs)

    def _predict(self, values: list[Any], leaves: list[torch.Tensor]) -> list[Any]:
        run = Run(self, values, leaves)
        learned = Wave.apply(run, 0, *leaves)
        outputs = list(run.outputs)
        for segment, ks in enumerate(self.program.outputs_of):
            if segment:
                token = learned[-1]
                learned = Wave.apply(run, segment, token, *[outputs[k] for k in self.sources[segment]])
            for k, value in zip(ks, learned, strict=False):
                outputs[k] = value
        run.outputs = []
        return outputs

    def report(self, watched: Sequence[Any]) -> None:
        """Hand the watched errors of one segment on."""
        self._on_errors(dict(zip(self.watch, watched, strict=True)))

    # -- values changed between prediction and learning ---------------------------------------------
    def versions(self, saved: Sequence[list[Any]], outputs: Sequence[Any], given: Sequence[Any]) -> list[Marks]:
        """Version counters and places of the saved values that somebody outside can write to, by segment."""
        if self._checked is None:
            memories = {k: _memory(outputs[k]) for ks in self.program.outputs_of for k in ks}
            counts = Counter(memories.values())
            self._shared = {k for k, memory in memories.items() if memory and counts[memory] > 1}
            outside = {_memory(t) for t in (*outputs, *given)}
            inside = {f"x_{name}" for name in self.program.externals}
            self._checked = [
                [
                    i
                    for i, (name, value) in enumerate(zip(names, values, strict=True))
                    if isinstance(value, torch.Tensor) and (name in inside or _memory(value) in outside)
                    if name not in self._again
                ]
                for names, values in zip(self.program.saved, saved, strict=True)
            ]
        return [_marks([values[i] for i in places]) for values, places in zip(saved, self._checked, strict=True)]

    def presentable(self, k: int, output: torch.Tensor, saved: Sequence[list[Any] | None]) -> torch.Tensor:
        """Output `k` so that the caller may write to it: no view, unless it shares memory with something kept."""
        if k in self._held:
            return output.detach()  # an object of its own, which can take the place of the caller's
        if not output._is_view():
            # As a view made in here, it refuses to be written to: the other output would not learn of it.
            return output.view_as(output) if k in self._shared else output
        if output.is_conj() or output.is_neg():
            return output.resolve_conj().resolve_neg()
        memory = _memory(output)
        kept = (value for values in saved for value in values or ())
        if any(_memory(value) == memory for value in (*kept, *self.binding.tensors)):
            return output
        whole = torch.empty(0, dtype=output.dtype, device=output.device)
        return whole.set_(output.untyped_storage(), output.storage_offset(), output.size(), output.stride())

    def check_versions(self, segment: int, saved: list[Any], versions: list[Marks]) -> None:
        """Raise as autograd does if a value needed for learning was changed in place since the prediction."""
        assert self._checked is not None
        places, was = self._checked[segment], versions[segment]
        now = _marks([saved[i] for i in places])
        if now == was:
            return
        n = next(n for n in range(len(places)) if (now[0][n], now[1][n]) != (was[0][n], was[1][n]))
        i, version = places[n], was[0][n]
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{self.program.saved[segment][i].split('_', 1)[1]!r} of shape {list(saved[i].shape)} is at "
            f"version {saved[i]._version}; expected version {version} instead. Learn before changing it."
            + (" (With memory='low' learning may read what backprop does not.)" if self.program.economical else "")
        )


def _read_again(program: Program) -> set[str]:
    """State that only checkpoints inside of the model read: they read it once more, as it is by then."""
    again = program.stitcher.recomputation.of
    uses = program.graph.uses
    states = [v.name for v in program.graph.role(Role.STATE)]
    return {f"x_{name}" for name in states if all(use.child in again for use in uses.get(name, ()))}


def _marks(tensors: list[torch.Tensor]) -> Marks:
    """What changes when a tensor is written to, or given other data."""
    try:
        return list(map(_version, tensors)), list(map(torch.Tensor.data_ptr, tensors))
    except RuntimeError:  # a layout without strides has no address
        places = [t.data_ptr() if t.layout is torch.strided else 0 for t in tensors]
        return list(map(_version, tensors)), places


def _memory(tensor: Any) -> int | None:
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage()._cdata
