"""The cells of a network during inference: every vertex on its own, with the names and layouts of its nodes.

The local programs are those that Z-IL uses: one operation, traced and proven by itself. Here every operand is a
value node of its own (``x * x`` has two Jacobians, as in the simulation), values move, and the vector-Jacobian product
comes in two halves: towards the values at every step, towards the parameters once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ..errors import LearnError
from ..graph import PCGraph, Ref, Role, TensorSpec, Vertex
from .draws import Draw
from .finite import finite
from .kinds import Kind, operation_key
from .layouts import dense, error_layout, separate
from .lines import Line, native_line
from .local import LocalProgram, LocalPrograms
from .moves import Moves, needed, same, swapped, tolerant
from .sweep import error_name


class Cells:
    """Makes the moves of every vertex of a graph.

    Args:
        graph: levelled, every output read by the loss alone.
        programs: cache of local programs.

    Attributes:
        values: name of every value, by reference.
        layouts: layout of every value node, which is its prediction's unless that overlaps itself (``expand``).
        errors: layout of every error node.
        predicted: layout of every prediction.
    """

    def __init__(self, graph: PCGraph, programs: LocalPrograms) -> None:
        self.graph, self.programs = graph, programs
        self.values: dict[Ref, str] = {}
        self.layouts: dict[Ref, TensorSpec] = {}
        self.errors: dict[Ref, TensorSpec] = {}
        self.predicted: dict[Ref, TensorSpec] = {}
        self.unbounded: set[str] = set()  # vertices whose values may be infinite where nothing is wrong
        self._outputs: dict[Any, tuple[TensorSpec | None, ...]] = {}
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        # What is held must be held in copies if somebody writes to it: a view of it may be what is written.
        self.copies = any(v.operation is not None and v.operation.writes for v in graph.vertices.values())

    def leaf(self, vertex: Vertex) -> None:
        """Name an input, a parameter or a state."""
        ref = Ref(vertex.name)
        self.values[ref] = f"x_{vertex.name}"
        self._hold(ref, self.graph.spec(ref))
        self.errors[ref] = error_layout(self.layouts[ref])

    def native(self, vertex: Vertex) -> Line:
        """A vertex that no error reaches: evaluated once, as the model's own call, and held."""
        assert vertex.operation is not None
        refs = [Ref(vertex.name, k) for k in range(len(vertex.outputs))]
        for k, ref in enumerate(refs):
            self.values[ref] = f"x{k or ''}_{vertex.name}"
            spec = vertex.outputs[k]
            if spec is not None:
                self._hold(ref, spec)
        operands = [self.values[ref] for ref in vertex.operands]
        return native_line(vertex.operation, operands, tuple(self.values[r] for r in refs), vertex.multi)

    def _hold(self, ref: Ref, spec: TensorSpec) -> None:
        """Lay out a value that does not move."""
        self.predicted[ref] = self.layouts[ref] = spec

    def _lay(self, ref: Ref, spec: TensorSpec) -> None:
        self.predicted[ref] = spec
        self.layouts[ref] = spec if separate(spec) else dense(spec)
        self.errors[ref] = error_layout(self.layouts[ref])

    # -- one vertex --------------------------------------------------------------------------------
    def relay(self, vertex: Vertex) -> Moves:
        """An identity: the prediction is the parent's value, the error goes back as it is."""
        ref, source = Ref(vertex.name), vertex.operands[0]
        self.values[ref] = f"x_{vertex.name}"
        self._lay(ref, replace(self.layouts[source], requires_grad=True))
        if source.vertex in self.unbounded:
            self.unbounded.add(vertex.name)
        error = error_name(ref)
        if self.graph[source.vertex].role is Role.PARAMETER:
            return Moves(vertex.name, (ref,), predictions=(self.values[source],), learned=((source, error),))
        return Moves(
            vertex.name, (ref,), predictions=(self.values[source],), handed=((source, error, self.errors[ref]),)
        )

    def operation(self, vertex: Vertex) -> Moves:
        """A vertex with an error node.

        Raises:
            LearnError: it writes to a value that carries an error.
        """
        graph, operation = self.graph, vertex.operation
        assert operation is not None
        carrying = [k for k, ref in enumerate(vertex.operands) if graph.carries_error(ref)]
        if set(carrying).intersection(operation.writes):
            raise LearnError("writes a value that carries an error", vertex=str(vertex.name), where=vertex.where())
        parameters = {k for k in carrying if graph[vertex.operands[k].vertex].role is Role.PARAMETER}
        movable = set(carrying) - parameters
        if not finite(graph, vertex, self.unbounded):
            self.unbounded.add(vertex.name)
        kind = self._kind(vertex, frozenset(carrying))
        whole = self.programs.get(kind)
        pulling, learning = self._half(vertex, whole, movable), self._half(vertex, whole, parameters)
        names, setup = self._names(vertex, whole, set(carrying))
        refs = tuple(Ref(vertex.name, k) for k, spec in enumerate(vertex.outputs) if spec and spec.requires_grad)
        first, again = self._predictions(vertex, whole, kind, names, setup)
        for line in (*whole.learn, *pulling.learn, *learning.learn):
            names.update((out, f"{out}_{vertex.name}") for out in line.outs)
        names.update((f"g{ref.output}", error_name(ref)) for ref in refs)
        pull, handed = self._lines(vertex, pulling, sorted(movable), names)
        learn, learned = self._lines(vertex, learning, sorted(parameters), names, "p")
        return Moves(
            vertex.name,
            refs,
            tuple(setup),
            tuple(first),
            tuple(again),
            tuple(names[whole.outputs[ref.output]] for ref in refs),
            tuple(pull),
            tuple((ref, name, spec) for ref, name, spec in handed if spec is not None),
            tuple(learn),
            tuple((ref, name) for ref, name, _ in learned),
        )

    def _names(self, vertex: Vertex, local: LocalProgram, carrying: set[int]) -> tuple[dict[str, str], list[Line]]:
        """Names of operands and of what the prediction makes, and the copies that are made before."""
        setup: list[Line] = []
        names: dict[str, str] = {}
        for i, ref in enumerate(vertex.operands):
            names[f"a{i}"] = self.values[ref]
            if self.copies and i not in carrying:
                names[f"a{i}"] = f"h{i}_{vertex.name}"
                setup.append(Line((names[f"a{i}"],), "%s.clone()", (self.values[ref],)))
        for line in local.predict:
            names.update((out, f"{out}_{vertex.name}") for out in line.outs)
        return names, setup

    def _predictions(
        self, vertex: Vertex, local: LocalProgram, kind: Kind, names: dict[str, str], setup: list[Line]
    ) -> tuple[list[Line], list[Line]]:
        """The prediction as the model makes it, and the same once more without its effects."""
        operation, refs = vertex.operation, [Ref(vertex.name, k) for k in range(len(vertex.outputs))]
        assert operation is not None
        again = [line.renamed(names) for line in local.predict]
        first = list(again)
        if operation.writes:
            written = {names[f"a{i}"]: f"w{i}_{vertex.name}" for i in operation.writes}
            effects = {f"a{i}": self.values[vertex.operands[i]] for i in operation.writes}
            first = [line.renamed({**names, **effects}) for line in local.predict]
            fresh = [Line((copy,), "%s.clone()", (held,)) for held, copy in written.items()]
            again = [*fresh, *(swapped(line, written) for line in again)]
            # Learning must not see what later vertices write, so it starts from an evaluation on copies.
            first += again
        if operation.random:
            draw, state, old = Draw.of(operation), f"r_{vertex.name}", f"o_{vertex.name}"
            setup.append(draw.line("state", (), state))
            swap = [draw.line("swap", (state,), old)]
            again = [*swap, *again, draw.line("swap", (old,), None)]
            if operation.writes:
                first = [*first[: len(local.predict)], *again]
        for k, ref in enumerate(refs):
            spec, made = vertex.outputs[k], kind.outputs[k]
            self.values[ref] = f"x{k or ''}_{vertex.name}"
            if spec is not None and spec.requires_grad:
                self._lay(ref, made or spec)
            else:  # held from here on
                if spec is not None:
                    self._hold(ref, made or spec)
                first.append(Line((self.values[ref],), "%s", (names[local.outputs[k]],)))
        return first, again

    # -- local programs ----------------------------------------------------------------------------
    def _kind(self, vertex: Vertex, flags: frozenset[int]) -> Kind:
        """The kind that hands errors to some of the operands."""
        assert vertex.operation is not None
        specs = []
        for k, ref in enumerate(vertex.operands):
            spec = self.layouts[ref]
            copied = self.copies and not self.graph.carries_error(ref)
            specs.append(replace(dense(spec) if copied else spec, requires_grad=k in flags))
        outputs = self._specs(vertex, tuple(specs))
        errors = tuple(
            (k, error_layout(spec))
            for k, spec in enumerate(outputs)
            if flags and spec is not None and spec.requires_grad
        )
        places = tuple(range(len(specs)))
        return Kind(vertex.operation, tuple(specs), places, outputs, vertex.multi, errors)

    def _half(self, vertex: Vertex, whole: LocalProgram, wanted: set[int]) -> LocalProgram:
        """A program that hands errors to `wanted` alone, if its prediction is the same: else a part of the whole."""
        if whole.opaque is None and wanted and wanted != set(whole.wanted):
            half = self.programs.get(self._kind(vertex, frozenset(wanted)))
            if half.opaque is None and same(half.predict, whole.predict):
                return half
        return whole

    def _specs(self, vertex: Vertex, operands: tuple[TensorSpec, ...]) -> tuple[TensorSpec | None, ...]:
        """Layouts of the outputs for these operands, which may be laid out in another way than the capture's."""
        assert vertex.operation is not None
        if operands == tuple(map(self.graph.spec, vertex.operands)):
            return vertex.outputs
        key = (operation_key(vertex.operation), operands, vertex.multi)
        if key not in self._outputs:
            self._outputs[key] = self._tried(vertex, operands)
        return self._outputs[key]

    def _tried(self, vertex: Vertex, operands: tuple[TensorSpec, ...]) -> tuple[TensorSpec | None, ...]:
        assert vertex.operation is not None
        try:
            with self._fake, torch.enable_grad():
                fakes = [
                    torch.empty_strided(s.shape, s.stride, dtype=s.dtype, device=s.device).requires_grad_(
                        s.requires_grad
                    )
                    for s in operands
                ]
                result = vertex.operation(*fakes)
            results = result if vertex.multi else (result,)
            return tuple(TensorSpec.of(r) if isinstance(r, torch.Tensor) else None for r in results)
        except Exception:  # it cannot be traced; the vertex becomes opaque
            return vertex.outputs

    def _lines(
        self, vertex: Vertex, local: LocalProgram, wanted: Sequence[int], names: dict[str, str], mark: str = ""
    ) -> tuple[list[Line], list[tuple[Ref, str, TensorSpec | None]]]:
        """Lines of a program as far as the errors of `wanted` need them, and those errors."""
        asked = [i for i in wanted if local.errors[i] is not None]
        if not asked:
            return [], []
        learn = [tolerant(line) for line in local.learn] if local.opaque is not None else list(local.learn)
        made = {out for line in learn for out in line.outs}
        own = {**names, **{out: f"{mark}{out}_{vertex.name}" for out in made}}
        lines = [line.renamed(own) for line in needed(learn, [str(local.errors[i]) for i in asked])]
        return lines, [(vertex.operands[i], own[str(local.errors[i])], local.layouts[i]) for i in asked]
