"""`Program`: a compiled prediction, and where learning from it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from ..errors import GraphError
from ..graph import PCGraph, Ref, Role
from ..schedule import Schedule
from .backends import EAGER, Backend
from .descent import Descent, unwritten
from .economise import economise, remembering
from .emit import Emitted
from .learning import Layouts, Learning, needs
from .lines import Line
from .local import LocalProgram, LocalPrograms
from .lock import LOCK
from .precision import settings, without_autocast
from .seams import Edge
from .stitch import Stitched, Stitcher
from .sweep import SegmentLines, Sweep

PROGRAMS = LocalPrograms()  # local programs are shared by all networks of the process


class Program:
    """Executable form of one scheduled graph.

    Args:
        schedule: what runs when.
        memory: ``"default"``, or ``"low"`` to keep less and evaluate it once more.

    ``predict(values)`` takes the values of all inputs, parameters and state in the order of `externals` and returns
    ``[outputs, saved, ...]``, one list of saved values per segment. Learning goes from the last segment to the first;
    `start` knows how.

    Attributes:
        schedule: what runs when.
        backend: what becomes of emitted lines.
        externals: names of the vertices whose values come from outside.
        ends: per segment, what the engine is handed: gradients of leaves and errors of single uses, by value.
        outputs_of: per segment, which outputs' errors it learns from.
        flights: per segment, names of the errors that are on their way when it begins to learn.
        saved: per segment, names of the values that the prediction keeps for it.
        learn_lines: learning with errors that arrive as expected; by segment.
        expected: layouts of those errors, by segment; None once an opaque vertex has handed on others than believed.
        opaque: why each opaque vertex could not be traced.
    """

    def __init__(self, schedule: Schedule, backend: Backend = EAGER, memory: str = "default") -> None:
        if len(set(schedule.graph.outputs)) != len(schedule.graph.outputs):
            raise GraphError("two outputs are the same value", hint="list it once and repeat it when rebuilding")
        self.schedule, self.backend = schedule, backend
        self.graph: PCGraph = schedule.graph
        leaf_roles = (Role.INPUT, Role.PARAMETER, Role.STATE)
        self.externals = tuple(v.name for v in self.graph.vertices.values() if v.role in leaf_roles)
        with LOCK, without_autocast():
            self.stitcher = Stitcher(schedule, PROGRAMS)
            self.predict_lines: Stitched = self.stitcher.predict()
            self.expected: tuple[Layouts, ...] | None
            self._settings = settings()
            self.expected, self.learn_lines, plan = self._expected()
            if memory == "low":
                self.stitcher.rematerialisation = economise(self.stitcher, self.predict_lines, self.learn_lines)
                self.predict_lines = remembering(self.predict_lines)
                self.expected, self.learn_lines, plan = self._expected()
        self.outputs_of = tuple(map(tuple, self.stitcher.outputs_of))
        self.ends: tuple[tuple[Ref, ...], ...] = tuple(
            tuple(end.source if isinstance(end, Edge) else end for end in ends) for ends in self.stitcher.ends
        )
        self.flights: tuple[tuple[str, ...], ...] = (*(segment.flight for segment in self.learn_lines[1:]), ())
        self.saved = tuple(map(needs, self.learn_lines, self.flights))
        self.opaque = {name: local.opaque for name, local in plan.items() if local.opaque is not None}
        self.start = Learning(self, None, ())
        self._untouched: dict[int, Learning] = {}
        self._descending: dict[frozenset[str], Callable[..., Any] | None] = {}

    def untouched(self, segment: int) -> Learning:
        """Learning at a segment when no error has arrived above it."""
        learning = self._untouched.get(segment)
        if learning is None:
            learning = self.start
            while learning.segment > segment:
                learning = learning.branch((None,) * len(self.outputs_of[learning.segment]), ()).below
            self._untouched[segment] = learning
        return learning

    @property
    def economical(self) -> bool:
        """Whether learning evaluates parts of the prediction once more."""
        return self.stitcher.rematerialisation is not None

    def returned(self, ref: Ref) -> bool:
        """Whether an output is a tensor of the caller's that comes back as it is."""
        return self.stitcher.returned(ref)

    @property
    def hides(self) -> bool:
        """Whether the engine does not see all of the error of some returned value; its gradients are right."""
        return bool(self.stitcher.inside)

    def _expected(self) -> tuple[tuple[Layouts, ...], tuple[SegmentLines, ...], dict[str, LocalProgram]]:
        """Learning with errors that arrive as expected: their layouts and the lines, by segment; and local programs."""
        sweep = Sweep(self.stitcher)
        layouts: list[Layouts] = []
        lines: list[SegmentLines] = []
        while sweep.segment:
            layouts.append(sweep.expected(sweep.segment - 1))
            lines.append(sweep.advance(layouts[-1]))
        return tuple(reversed(layouts)), tuple(reversed(lines)), sweep.plan

    def expects(self, segment: int, layouts: Layouts) -> bool:
        """Whether errors of these layouts are what `learn_lines` were written for."""
        return self.expected is not None and layouts == self.expected[segment] and self._settings == settings()

    def forget_expected(self) -> None:
        """Opaque vertices hand on other errors than was believed when the lines were written."""
        self.expected = None
        self.stitcher.programs.forget_opaque()

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
        return self.backend.emit("predict", arguments, self.predict_lines.lines, [results, *self.saved])

    @property
    def predict(self) -> Callable[[list[Any]], list[list[Any]]]:
        """The compiled prediction. It empties the list that it is given."""
        return self._predict.function

    @cached_property
    def together(self) -> Callable[[list[Any]], list[list[Any]]] | None:
        """Prediction and learning from an error of 1 at the only output, as one function of the externals' values.

        Returns ``[outputs, results]``. For programs of one segment and one output, without opaque vertices; None if
        the error of a fresh tensor is not what the lines of learning were written for.
        """
        if not self.expects(0, (self.stitcher.contiguous[0],)):
            return None
        arguments = [("values", [f"x_{name}" for name in self.externals])]
        results = tuple(name or "None" for name in self.learn_lines[0].results)
        return self.backend.emit("together", arguments, self._whole(), [self._outputs, results]).function

    @property
    def _outputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.predict_lines.results if name is not None)

    def _whole(self) -> list[Line]:
        """Prediction, an error of 1 at the only output, and learning."""
        seed = Line(("arriving0",), "torch.ones_like(%s)", self._outputs, (), torch.ops.aten.ones_like.default)
        return [*self.predict_lines.lines, seed, *self.learn_lines[0].lines]

    def descending(self, leaves: frozenset[str]) -> Callable[[list[Any], list[float]], list[list[Any]]] | None:
        """`together`, after which some leaves have learned by gradient descent.

        The second argument has the negative rates of these leaves, in the order of `externals`; their results are None.
        None where a leaf's memory may be read or returned after it has changed.
        """
        if leaves not in self._descending:
            self._descending[leaves] = self._descent(leaves)
        return self._descending[leaves]

    def _descent(self, leaves: frozenset[str]) -> Callable[..., Any] | None:
        if not self.expects(0, (self.stitcher.contiguous[0],)):
            return None
        lines, results = self._whole(), self.learn_lines[0].results
        rates = {f"x_{name}": f"rate_{name}" for name in self.externals if name in leaves}
        names = [f"x_{end.vertex}" for end in self.ends[0]]
        if len(set(names)) < len(names):
            return None
        gradients = {x: found for x, found in zip(names, results, strict=True) if x in rates and found is not None}
        inputs = unwritten(self.graph) - set(rates)
        descent = Descent(lines, gradients, rates, inputs, self._outputs, products=not self.backend.exact)
        if not descent.possible:
            return None
        lines = [line for line in lines if id(line) not in descent.dropped] + list(descent.updates.values())
        left = tuple("None" if x in rates else found or "None" for x, found in zip(names, results, strict=True))
        arguments = [("values", [f"x_{name}" for name in self.externals]), ("rates", list(rates.values()))]
        return self.backend.emit("descend", arguments, lines, [self._outputs, left]).function

    @property
    def sources(self) -> dict[str, str]:
        """Generated Python: the prediction, and learning with errors that arrive as expected."""
        step, sources = self.start, []
        for layouts in reversed(self.expected or self._expected()[0]):
            branch = step.branch(layouts, ())
            sources.append(branch.source)
            step = branch.below
        return {"predict": self._predict.source, "learn": "\n".join(sources)}
