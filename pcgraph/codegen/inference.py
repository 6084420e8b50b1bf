"""Inference learning as one straight-line program: the first prediction, T inference steps, and learning.

A step goes from the outputs inward, one level after the other, and is left at the first level that no error has come to
yet (activity). At each level the vertices pull their errors back to their operands, then the operands move, and then
the level predicts from where they are now: all from the state at time t, though one level is done before the next
begins, since nobody else reads these values. T and gamma are arguments: no program is compiled anew for another T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from ..graph import PCGraph, Ref, Role
from ..schedule import Schedule, lags
from .backends import EAGER, Backend
from .buffers import Scratch, into
from .cells import Cells
from .descent import Descent, unwritten
from .lines import Line
from .local import LocalPrograms
from .lock import LOCK
from .moves import Moves
from .precision import without_autocast
from .script import Script
from .steps import Sums, awake, difference, move, place, wander
from .stretches import Stretches
from .sweep import error_name

Face = Callable[[list[Any]], list[Any]]


class Inference:
    """Executable inference on one graph.

    ``run(values, face, steps, gamma)`` takes the values of `externals`, a function from the outputs to the errors of
    those that carry one (PyTorch's sign), T, and the integration step. It returns ``[gradients, looked]``: one
    gradient per entry of `leaves` (None where no error has arrived by T), and value and error of every entry of
    `looks` (an error that is still 0 is None).

    Args:
        schedule: of inference learning, on a levelled graph whose outputs are read by the loss alone.
        programs: cache of local programs.
        looking: keep every value and error up to T, so that they can be looked at.
        skipping: leave out the levels that no error has come to yet. False is there to be measured.
        backend: may put several levels of a step into a few kernels (`stretches`).
        descending: leaves that learn by gradient descent in the end; `run` takes their negative rates, too.

    Attributes:
        externals: names of inputs, parameters and state.
        leaves: those that receive a gradient.
        faced: outputs that carry an error; what `face` returns, in this order.
        looks: values that can be looked at.
        cells: names and layouts.
        moves: the lines of every vertex.
        copied: which gradients a leaf takes a copy of; None as long as that is not known.
        possible: whether they can; if not, nobody may run this.
        source: generated Python.
    """

    def __init__(
        self,
        schedule: Schedule,
        programs: LocalPrograms,
        looking: bool = False,
        skipping: bool = True,
        backend: Backend = EAGER,
        descending: frozenset[str] = frozenset(),
    ) -> None:
        self.graph: PCGraph = schedule.graph
        self._backend = backend
        graph = self.graph
        leaves = (Role.INPUT, Role.PARAMETER, Role.STATE)
        self.externals = tuple(v.name for v in graph.vertices.values() if v.role in leaves)
        self.leaves = tuple(n for n in self.externals if n in graph.depth and graph[n].role is not Role.STATE)
        self.faced = tuple(ref for ref in graph.outputs if graph.carries_error(ref))
        self.copied: Sequence[bool] | None = None
        self._still = frozenset(f"x_{name}" for name in self.externals)
        self._skipping = skipping
        self._since = {name: min(steps) if skipping else 0 for name, steps in schedule.active.items()}
        with LOCK, without_autocast():
            self.cells = Cells(graph, programs)
            first = self._first()
        self.looks = tuple(ref for m in self.moves.values() for ref in m.refs) if looking else ()
        self._lags = lags(graph, self._wanted())
        self._rates_of = {f"x_{name}": f"rate_{name}" for name in self.leaves if name in descending}
        descent = self._descent(first)
        self.possible = descent.possible
        script = Script("infer", ("values", "face", "steps", "gamma", "rates=()"))
        script.unpack("values", [f"x_{name}" for name in self.externals])
        if self._rates_of:
            script.add(f"[{', '.join(self._rates_of.values())}] = rates")
        script.lines(first)
        self._face(script)
        self._start(script)
        body, scratch = script.fork(), Scratch()
        with body.block("for t in range(steps):"):
            self._step(body, scratch)
            self._face_again(body)
        for name, spec in self._stretches.rates.items():
            script.add(f"{name} = torch.full((), gamma, dtype={spec.dtype}, device={str(spec.device)!r})")
        scratch.make(script)
        script.join(body)
        self._end(script)
        self._learn(script, descent)
        self.source, self.run = script.compile()

    # -- the first prediction --------------------------------------------------------------------
    def _first(self) -> list[Line]:
        graph, cells = self.graph, self.cells
        self.moves: dict[str, Moves] = {}
        lines: list[Line] = []
        for name, vertex in graph.vertices.items():
            if vertex.operation is None and vertex.role is not Role.RELAY:
                cells.leaf(vertex)
            elif name not in graph.depth:
                lines.append(cells.native(vertex))
            else:
                moves = cells.relay(vertex) if vertex.operation is None else cells.operation(vertex)
                self.moves[name] = moves
                alone = self._backend.alone
                first = moves.first if vertex.multi else [alone(i, cells.predicted[moves.refs[0]]) for i in moves.first]
                lines += [*moves.setup, *first]
                if graph.depth[name]:
                    lines += [place(cells, ref, mu) for ref, mu in zip(moves.refs, moves.predictions, strict=True)]
        self._predictions = {
            ref: mu for m in self.moves.values() for ref, mu in zip(m.refs, m.predictions, strict=True)
        }
        refs = [ref for m in self.moves.values() for ref in m.refs] + self._inputs()
        self._kept = {error_name(ref) for ref in refs} | {cells.values[ref] for ref in refs}
        self._kept |= {read for m in self.moves.values() for line in (*m.pull, *m.learn) for read in line.reads}
        return lines

    def _face(self, script: Script) -> None:
        """The outputs' errors, from the loss."""
        outputs = [self._predictions.get(ref, self.cells.values[ref]) for ref in self.graph.outputs]
        script.add(f"[{', '.join(map(error_name, self.faced))}] = face([{', '.join(outputs)}])")
        for ref, mu in self._predictions.items():  # items of a tuple that is returned in part
            if not self.graph.depth[ref.vertex] and ref not in self.faced:
                script.add(f"{error_name(ref)} = torch.zeros_like({mu})")

    def _face_again(self, script: Script) -> None:
        """The same after a step."""
        self._face(script)

    def _start(self, script: Script) -> None:
        """Errors before the first step: none, or zeros where no level is left out."""
        if self._skipping:
            for ref in self.looks:
                if self.graph.depth[ref.vertex]:
                    script.add(f"{error_name(ref)} = None")
            return
        script.lines([line for ref, mu in self._predictions.items() for line in awake(self.cells, ref, mu)])
        script.lines(
            [Line((error_name(ref),), "torch.zeros_like(%s)", (self.cells.values[ref],)) for ref in self._inputs()]
        )

    def _end(self, script: Script) -> None:
        """After the last step, before learning."""

    # -- one step ----------------------------------------------------------------------------------
    def _step(self, script: Script, scratch: Scratch) -> None:
        """Level by level: errors go back, the values one level deeper move, and this level predicts from them."""
        outputs = {mu for moves in self._levels.get(0, ()) for mu in moves.predictions}
        with script.block("for _ in once:"):
            for depths in self._stretches.depths:
                calls = self._stretches.calls(depths, scratch) if self._skipping else None
                if calls is None:
                    for depth in depths:
                        self._level(script, depth, scratch)
                    continue
                first, last = self._awake(depths[0]), self._awake(depths[-1])
                if self._stretches.early(depths):
                    if first:
                        script.add(f"if t < {first}: break")
                    with script.block(f"if t == {first}:"):
                        script.lines(self._stretches.wake(depths))
                    script.lines(calls, self._kept | outputs)
                    with script.block(f"if t == {last}:"):
                        script.lines(self._stretches.arrive(depths))
                else:
                    with script.block(f"if t <= {last}:"):
                        for depth in depths:
                            self._level(script, depth, scratch)
                    with script.block("else:"):
                        script.lines(calls, self._kept | outputs)

    @cached_property
    def _levels(self) -> dict[int, list[Moves]]:
        """Vertices by depth, the last one first."""
        found: dict[int, list[Moves]] = {}
        for moves in reversed(self.moves.values()):
            found.setdefault(self.graph.depth[moves.vertex], []).append(moves)
        return dict(sorted(found.items()))

    @cached_property
    def _stretches(self) -> Stretches:
        inputs = self._inputs()
        return Stretches(self.cells, self._levels, inputs, self._lags, self._still, self._can_move, self._backend)

    def _awake(self, depth: int) -> int:
        """When errors come to a level."""
        return min(self._since[moves.vertex] for moves in self._levels[depth])

    def _level(self, script: Script, depth: int, scratch: Scratch) -> None:
        here, since, sums = self._levels[depth], self._awake(depth), Sums(scratch)
        if since:
            script.add(f"if t < {since}: break")
        for moves in here:
            self._pull(script, moves, sums)
        for ref in self._stretches.deeper(depth):
            self._move(script, ref, since, sums)
        for moves in here:
            self._predict(script, moves, scratch)
        scratch.free()

    def _inputs(self) -> list[Ref]:
        """Clamped inputs that collect an error."""
        return [Ref(v.name) for v in self.graph.role(Role.INPUT) if self.graph.depth.get(v.name)]

    def _pull(self, script: Script, moves: Moves, sums: Sums) -> None:
        if moves.handed:
            with script.until(self._lags.pulls[moves.vertex] - 1):
                lines, handed = sums.collected(moves)
                script.lines(lines, keep={name for _, name, _ in handed} | self._kept)
                for ref, name, spec in handed:
                    # What another vertex hands to this value may have ended already, with the value's last move.
                    with script.until(self._lags.values[ref.vertex]):
                        script.lines(sums.add(ref, name, spec))

    def _move(self, script: Script, ref: Ref, since: int, sums: Sums) -> None:
        with script.until(self._lags.values[ref.vertex]):
            mu = self._predictions.get(ref)
            if mu is None:
                start, later = wander(ref, sums)
            else:
                start, later = move(self.cells, ref, mu, sums)
                start += difference(self.cells, ref, mu)[0]
            if self._skipping:
                script.either(f"t == {since}", start, later, self._kept)
            else:
                script.lines(later, self._kept)

    def _predict(self, script: Script, moves: Moves, scratch: Scratch) -> None:
        """The predictions of a vertex from operands that have moved, and the errors of its values, which have too."""
        depth, cells = self.graph.depth[moves.vertex], self.cells
        again = moves.again if self._can_move(moves.vertex) else ()
        with script.until(self._lags.errors[moves.vertex]):
            if not depth:
                script.lines(again, self._kept | set(moves.predictions))
            elif not again:
                for ref, mu in zip(moves.refs, moves.predictions, strict=True):
                    script.lines(difference(cells, ref, mu)[1])
            else:
                lines = self._predicted(moves)
                scratch.views(lines)
                script.lines(lines, self._kept)

    def _predicted(self, moves: Moves) -> list[Line]:
        """Lines of a prediction and of the errors after it, in memory that is there already where that is possible."""
        cells = self.cells
        errors = [
            line
            for ref, mu in zip(moves.refs, moves.predictions, strict=True)
            for line in difference(cells, ref, mu)[1]
        ]
        if len(moves.again) == 1 and moves.again[0].outs == moves.predictions and len(moves.refs) == 1:
            ref, mu = moves.refs[0], moves.predictions[0]
            alike = cells.predicted[ref] == cells.layouts[ref] and cells.errors[ref].stride == cells.layouts[ref].stride
            if alike and ref.vertex not in cells.unbounded:
                error = error_name(ref)
                if mu not in self._kept:
                    direct = into(moves.again[0], error, self._still)
                    if direct is not None:
                        return [direct, Line((), "%s.sub_(%s)", (error, cells.values[ref]))]
                elif all(
                    use.child in self.graph.depth for use in self.graph.uses[ref.vertex]
                ):  # else somebody holds it
                    same = into(moves.again[0], mu)
                    if same is not None:
                        return [same, *errors]
        return [*moves.again, *errors]

    def _held(self, ref: Ref) -> bool:
        """Whether a value that does not move may lie in the memory of this prediction."""
        children = {self.graph[use.child] for use in self.graph.uses[ref.vertex]}
        return any(
            c.name not in self.graph.depth or not all(s and s.requires_grad for s in c.outputs) for c in children
        )

    def _can_move(self, name: str) -> bool:
        """Whether a vertex reads a value node that moves; if not, its prediction stays what it was."""
        graph = self.graph
        still = (Role.INPUT, Role.PARAMETER, Role.STATE)
        return any(r.vertex in graph.depth and graph[r.vertex].role not in still for r in graph[name].operands)

    def _wanted(self) -> set[str]:
        """Vertices whose values and errors matter to the end, whether a parameter learns from them or not."""
        return {ref.vertex for ref in self.looks}

    def _unplaced(self, ref: Ref) -> bool:
        """Whether a value node is known by its prediction and error alone."""
        return not self.graph.depth[ref.vertex]

    # -- learning ----------------------------------------------------------------------------------
    def _descent(self, first: Sequence[Line]) -> Descent:
        """The updates of leaves that learn in place; by one product, those of a single use."""
        graph, learn = self.graph, [line for moves in self.moves.values() for line in moves.learn]
        uses: dict[str, list[str]] = {x: [] for x in self._rates_of}
        for moves in self.moves.values():
            for ref, result in moves.learned:
                if (x := f"x_{ref.vertex}") in uses:
                    uses[x].append(result)
        gradients = {x: results[0] if len(results) == 1 else f"p_{x[2:]}" for x, results in uses.items()}
        inputs = unwritten(graph) - set(uses)
        # Sums over uses are memory of their own.
        sums = [Line((p,), " + ", tuple(uses[x])) for x, p in gradients.items() if p not in uses[x]]
        outputs = [self._predictions.get(ref, self.cells.values[ref]) for ref in graph.outputs]
        return Descent([*first, *learn, *sums], gradients, self._rates_of, inputs, outputs, products=True)

    def _learn(self, script: Script, descent: Descent) -> None:
        graph = self.graph
        names = {name: f"p_{name}" for name in self.leaves}
        for name in self.leaves:
            script.add(f"{names[name]} = None")
        late: list[tuple[int, Line]] = []  # parameters change when nobody reads them any more
        for name in reversed(self.moves):  # the order in which autograd adds up the uses of a parameter
            moves = self.moves[name]
            if moves.learned:
                lines = [line for line in moves.learn if id(line) not in descent.dropped]
                gone = {out for line in moves.learn if id(line) in descent.dropped for out in line.outs}
                late += [(self._since[name], descent.updates[f"x_{r.vertex}"]) for r, g in moves.learned if g in gone]
                keep = {result for _, result in moves.learned}.union(*(line.reads for _, line in late))
                with script.block(f"if steps >= {self._since[name]}:"):
                    script.lines(lines, keep=keep)
                    for ref, result in moves.learned:
                        total = names[ref.vertex]
                        if result not in gone:
                            script.add(f"{total} = {result} if {total} is None else {total} + {result}")
        for since, line in late:
            with script.block(f"if steps >= {since}:"):
                script.lines([line])
        for x, rate in self._rates_of.items():
            total = names[x[2:]]
            with script.block(f"if {total} is not None:"):
                script.add(f"{x}.add_({total}, alpha={rate})")
                script.add(f"{total} = None")
        for name in self.leaves:
            if graph[name].role is Role.INPUT:
                with script.block(f"if steps >= {graph.depth[name]}:"):
                    script.add(f"{names[name]} = {error_name(Ref(name))}")
        for ref, mu in reversed(self._predictions.items()):  # the prediction of a relay is the value of its parent
            if ref in self.looks and self._unplaced(ref):
                script.add(f"{self.cells.values[ref]} = {mu} - {error_name(ref)}")
        looked = [f"({self.cells.values[ref]}, {error_name(ref)})" for ref in self.looks]
        script.add(f"return [{', '.join(names.values())}], [{', '.join(looked)}]")
