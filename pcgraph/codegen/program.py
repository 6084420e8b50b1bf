"""`Program`: the compiled prediction, and a compiled learning program per pattern of arriving errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from ..errors import GraphError, LearnError
from ..graph import PCGraph, Ref, Role, TensorSpec
from ..schedule import Schedule
from .emit import Emitted, emit
from .local import LocalPrograms
from .opaque import Silent
from .precision import without_autocast
from .stitch import Stitched, Stitcher

PROGRAMS = LocalPrograms()  # local programs are shared by all networks of the process

_lock = threading.RLock()  # tracing is not safe on several threads

Learn = Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]


class Program:
    """Executable form of one scheduled graph.

    ``predict(values)`` takes the values of all inputs, parameters and state in the order of `externals` and
    returns ``(outputs, saved)``. ``learn(pattern, watch)`` gives a function ``(saved, errors) -> (gradients,
    watched errors)``; gradients are those of `leaves`, in order.

    Attributes:
        schedule: what runs when.
        externals: names of the vertices whose values come from outside.
        leaves: those of them that need a gradient.
        opaque: reason per opaque vertex.
    """

    def __init__(self, schedule: Schedule) -> None:
        if len(set(schedule.graph.outputs)) != len(schedule.graph.outputs):
            raise GraphError("two outputs are the same value", hint="list it once and repeat it when rebuilding")
        self.schedule = schedule
        self.graph: PCGraph = schedule.graph
        leaf_roles = (Role.INPUT, Role.PARAMETER, Role.STATE)
        outside = [v for v in self.graph.vertices.values() if v.role in leaf_roles]
        self.externals = tuple(v.name for v in outside)
        self.leaves = tuple(v.name for v in outside if v.differentiable and v.role is not Role.STATE)
        with _lock, without_autocast():
            self._stitcher = Stitcher(schedule, PROGRAMS)
            self._default = tuple(_contiguous(self.graph.spec(ref)) for ref in self.graph.outputs)
            self.predict_lines: Stitched = self._stitcher.predict(self._default)
            self.learn_lines, self._error_names = self._stitcher.learn(self._default)
        self.saved = self._saved_names(self.learn_lines)
        self._learned: dict[Any, Emitted] = {}
        self._silenced = False

    @cached_property
    def opaque(self) -> dict[str, str]:
        """Why each opaque vertex could not be traced."""
        kinds = self._stitcher._plan(self._default)
        return {name: local.opaque for name, local in kinds.items() if local.opaque is not None}

    def annotate(self) -> None:
        """Write the reasons of opaque vertices into the graph, for people."""
        vertices = []
        for vertex in self.graph.vertices.values():
            reason = self.opaque.get(vertex.name)
            if reason is not None and vertex.operation is not None:
                vertex = replace(vertex, operation=replace(vertex.operation, opaque=reason))
            vertices.append(vertex)
        self.graph = PCGraph(vertices, self.graph.outputs, self.graph.name)
        self.schedule = replace(self.schedule, graph=self.graph)

    @cached_property
    def _predict(self) -> Emitted:
        arguments = [("values", [f"x_{name}" for name in self.externals])]
        results = tuple(name for name in self.predict_lines.results if name is not None)
        return emit("predict", arguments, self.predict_lines.lines, [results, self.saved])

    @property
    def predict(self) -> Callable[[list[Any]], tuple[list[Any], list[Any]]]:
        """The compiled prediction. It empties the list that it is given."""
        return self._predict.function

    def learn(self, layouts: tuple[TensorSpec | None, ...], watch: tuple[Ref, ...] = ()) -> Learn:
        """The compiled learning program for errors that arrive with these layouts (None: no error there).

        Raises:
            LearnError: errors of such layouts would need values that the prediction did not keep.
        """
        key = (layouts, watch)
        emitted = self._learned.get(key)
        if emitted is None:
            with _lock, without_autocast():
                emitted = self._learned[key] = self._emit_learn(layouts, watch)
        return emitted.function

    def run_learning(
        self, saved: list[Any], errors: list[Any], layouts: tuple[TensorSpec | None, ...], watch: tuple[Ref, ...]
    ) -> tuple[list[Any], list[Any]]:
        """Learn once; consumes `saved` and `errors`.

        Whether an opaque vertex hands an error to each of its operands shows only when it learns. Where one does
        not (a custom function that returns None), the program is stitched anew without that error and run again,
        so that what autograd leaves at None stays None.
        """
        if not self.opaque:
            return self.learn(layouts, watch)(saved, errors)
        while True:
            try:
                return self.learn(layouts, watch)(list(saved), list(errors))
            except Silent:
                PROGRAMS.forget_opaque()
                self._learned.clear()
                self._silenced = True

    def _emit_learn(self, layouts: tuple[TensorSpec | None, ...], watch: tuple[Ref, ...]) -> Emitted:
        if layouts == self._default and not self._silenced:
            lines, names = self.learn_lines, self._error_names
        else:
            lines, names = self._stitcher.learn(layouts)
        missing = set(self._saved_names(lines)) - set(self.saved)
        if missing:
            raise LearnError(
                f"errors of these layouts need values that the prediction did not keep: {sorted(missing)[:3]}",
                hint="make the gradient of the output contiguous, e.g. multiply the output by 1 before the loss",
            )
        arriving = [f"arriving{k}" for k, layout in enumerate(layouts) if layout is not None]
        results = tuple(name or "None" for name in lines.results)
        watched = tuple(names.get(ref, "None") for ref in watch)
        arguments = [("saved", self.saved), ("errors", arriving)]
        return emit("learn", arguments, lines.lines, [results, watched])

    def _saved_names(self, learn: Stitched) -> tuple[str, ...]:
        """What learning reads that learning does not make: the values that the prediction keeps."""
        made = {out for line in learn.lines for out in line.outs}
        reads = dict.fromkeys(read for line in learn.lines for read in line.reads)
        return tuple(name for name in reads if name not in made and not name.startswith("arriving"))

    @property
    def sources(self) -> dict[str, str]:
        """Generated Python of the prediction and of the default learning program."""
        self.learn(self._default)
        return {"predict": self._predict.source, "learn": self._learned[self._default, ()].source}


def _contiguous(spec: TensorSpec) -> TensorSpec:
    """Layout of a freshly computed error of a value."""
    stride = tuple(torch.empty(spec.shape, device="meta").stride())
    return replace(spec, stride=stride, requires_grad=False)
