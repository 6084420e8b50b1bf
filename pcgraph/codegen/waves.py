"""Inference whose state is the errors, as straight-line programs of the same local parts.

Nothing is left out: an error reaches every vertex in the first step, or is 0 until it comes.
"""

from __future__ import annotations

from ..graph import Ref, TensorSpec
from ..schedule import Schedule
from .buffers import Scratch
from .inference import Inference
from .lines import Line
from .local import LocalPrograms
from .script import Script
from .steps import Sums
from .sweep import error_name


class FixedInference(Inference):
    """Predictions and Jacobians stay those of the first prediction: ``eps += gamma * (incoming - eps)``.

    Args:
        schedule: of inference learning, on a levelled graph whose outputs are read by the loss alone.
        programs: cache of local programs.
        looking: keep every error up to T, so that it can be looked at.
    """

    def __init__(self, schedule: Schedule, programs: LocalPrograms, looking: bool = False) -> None:
        super().__init__(schedule, programs, looking, skipping=False)

    def _step(self, script: Script, scratch: Scratch) -> None:
        sums = Sums(scratch)
        for moves in reversed(self.moves.values()):
            self._pull(script, moves, sums)
        for ref in self._errors():
            script.lines(_follow(error_name(ref), sums.of(ref)))
        scratch.free()

    def _face_again(self, script: Script) -> None:
        """Outputs stay where they are, and so do their errors; only who looks is told the loss again."""
        if self.looks:
            outputs = [self._predictions.get(ref, self.cells.values[ref]) for ref in self.graph.outputs]
            script.add(f"face([{', '.join(outputs)}])")

    def _errors(self) -> list[Ref]:
        """Error nodes that move, parents first: what a child hands on may be its error itself, which moves after."""
        return self._inputs() + [ref for ref in self._predictions if self.graph.depth[ref.vertex]]

    def _wanted(self) -> set[str]:
        return set(self.moves)  # what passes by matters further down

    def _unplaced(self, ref: Ref) -> bool:
        return True


class ErrorInference(FixedInference):
    """Errors descend the energy, values follow: a wave from the outputs down, then a prediction with errors on top."""

    def _start(self, script: Script) -> None:
        super()._start(script)
        script.lines([Line((_state(ref),), "%s", (error_name(ref),)) for ref in self._errors()])

    def _step(self, script: Script, scratch: Scratch) -> None:
        sums, depth = Sums(scratch), self.graph.depth
        for moves in reversed(self.moves.values()):
            for ref in moves.refs:
                if depth[ref.vertex]:
                    script.lines([_wave(ref, sums, self.cells.errors[ref])])
            self._pull(script, moves, sums)
        for ref in self._errors():
            script.lines(_follow(_state(ref), sums.of(ref)))
        for moves in self.moves.values():
            if self._can_move(moves.vertex):
                script.lines(moves.again, self._kept | set(moves.predictions))
            for ref, mu in zip(moves.refs, moves.predictions, strict=True):
                if depth[ref.vertex]:
                    script.lines([Line((), "torch.sub(%s, %s, out=%s)", (mu, _state(ref), self.cells.values[ref]))])
        scratch.free()

    def _face_again(self, script: Script) -> None:
        self._face(script)

    def _end(self, script: Script) -> None:
        """Parameters learn from the errors, not from the wave."""
        script.lines([Line((error_name(ref),), "%s", (_state(ref),)) for ref in self._errors()])

    def _unplaced(self, ref: Ref) -> bool:
        return not self.graph.depth[ref.vertex]


def _state(ref: Ref) -> str:
    """Name of an error that is state, where another one passes by."""
    return f"s{ref.output or ''}_{ref.vertex}"


def _wave(ref: Ref, sums: Sums, layout: TensorSpec) -> Line:
    """What passes by a vertex: all that it has received, laid out as the error that its program was made for."""
    received = sums.of(ref)
    if received is None:
        return Line((error_name(ref),), "torch.zeros_like(%s)", (_state(ref),))
    found = sums.layout(ref)
    if (found.shape, found.stride) == (layout.shape, layout.stride):
        return Line((error_name(ref),), "%s", (received,))
    return Line((error_name(ref),), "torch.empty_like(%s).copy_(%s)", (_state(ref), received))


def _follow(error: str, received: str | None) -> list[Line]:
    """``e += gamma * (received - e)``."""
    if received is None:
        return [Line((), "%s.add_(%s, alpha=-gamma)", (error, error))]
    return [Line((), "%s.add_(%s - %s, alpha=gamma)", (error, received, error))]
