"""One captured call, compiled: a program, the tensors it reads, and how to rebuild the return value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..codegen import Program, without_autocast
from ..graph import PCGraph, Ref
from .binding import Binding
from .bridge import Wave
from .held import adopt
from .run import Run

Mark = tuple[int, int]


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
        self._plain = tuple(k for k in outputs if k not in learning and k not in self._given)
        place = {name: i for i, name in enumerate(program.externals)}
        self._given_places = [place[graph.outputs[k].vertex] for k in self._given]
        number = {ref: k for k, ref in enumerate(graph.outputs)}
        # What each segment hands errors to: the values of leaves below segment 0, outputs of lower segments elsewhere.
        self._sources = [
            [place[ref.vertex] if s == 0 else number[ref] for ref in ends] for s, ends in enumerate(program.ends)
        ]
        reached = _reached(graph)
        # Autograd has no edge to a state that is detached where it is used; its own network's values are gone by now.
        self._cut = {i for i in self._sources[0] if program.externals[i] not in reached}
        self._held = {item.output for item in binding.held}
        self._checked: list[list[int]] | None = None
        self._shared: set[int] = set()  # outputs with an error that share memory with others

    @property
    def first(self) -> bool:
        """Whether it is not known yet which saved values share memory with what the caller holds."""
        return self._checked is None

    # -- running -----------------------------------------------------------------------------------
    def __call__(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Predict, and be ready to learn."""
        for i in self.binding.woken:
            inputs[i].requires_grad_()
        values = self.binding.values(inputs)
        leaves = [values[i].detach() if i in self._cut else values[i] for i in self._sources[0]]
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
        program = self.program
        with torch.no_grad():
            run = Run(self, values, leaves)
        outputs = list(run.outputs)
        for k in self._plain:  # detached, since a view of an output that learns would come to need a gradient with it
            outputs[k] = outputs[k].detach()
        token: tuple[torch.Tensor, ...] = ()
        for segment, ks in enumerate(program.outputs_of):
            sources = leaves if segment == 0 else [outputs[k] for k in self._sources[segment]]
            learned = Wave.apply(run, segment, *token, *sources)
            for k, value in zip(ks, learned, strict=False):
                outputs[k] = value
            token = learned[len(ks) :]
        return outputs

    def report(self, watched: Sequence[Any]) -> None:
        """Hand the watched errors of one segment on."""
        self._on_errors(dict(zip(self.watch, watched, strict=True)))

    # -- values changed between prediction and learning ---------------------------------------------
    def versions(self, saved: Sequence[list[Any]], outputs: Sequence[Any], given: Sequence[Any]) -> list[list[Mark]]:
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
                ]
                for names, values in zip(self.program.saved, saved, strict=True)
            ]
        return [[_mark(values[i]) for i in places] for values, places in zip(saved, self._checked, strict=True)]

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

    def check_versions(self, segment: int, saved: list[Any], versions: list[list[Mark]]) -> None:
        """Raise as autograd does if a value needed for learning was changed in place since the prediction."""
        assert self._checked is not None
        for i, version in zip(self._checked[segment], versions[segment], strict=True):
            if _mark(saved[i]) != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"{self.program.saved[segment][i].split('_', 1)[1]!r} of shape {list(saved[i].shape)} is at "
                    f"version {saved[i]._version}; expected version {version[0]} instead. Learn before changing it."
                )


def _reached(graph: PCGraph) -> set[str]:
    """The vertices that an error of some output can come to."""
    reached: set[str] = set()
    stack = [ref.vertex for ref in graph.outputs]
    while stack:
        vertex = graph.vertices[stack.pop()]
        if vertex.name not in reached and vertex.differentiable:
            reached.add(vertex.name)
            stack.extend(ref.vertex for ref in vertex.operands)
    return reached


def _mark(tensor: torch.Tensor) -> Mark:
    """What changes when a tensor is written to, or given other data."""
    return (tensor._version, tensor.data_ptr() if tensor.layout is torch.strided else 0)


def _memory(tensor: Any) -> int | None:
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage()._cdata
