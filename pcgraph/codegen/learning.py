"""Learning programs, compiled per segment for the errors that really arrive.

Which outputs receive errors, and in which layout, shows when they arrive; at a seam that is only when everything above
has learned. So the compiled segments form a tree: from each, one branch per pattern of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import LearnError
from ..graph import Ref, TensorSpec
from .lock import LOCK
from .opaque import Surprise
from .precision import without_autocast
from .sweep import SegmentLines, Sweep

if TYPE_CHECKING:
    from .program import Program

Layouts = tuple[TensorSpec | None, ...]


@dataclass(frozen=True)
class Branch:
    """A compiled segment.

    Attributes:
        function: ``(saved, flight, errors) -> (results, watched errors, flight for the segment below)``.
        source: of the function.
        below: how to go on.
    """

    function: Callable[[list[Any], list[Any], list[Any]], list[list[Any]]]
    source: str
    below: Learning


def needs(segment: SegmentLines, flight: Sequence[str]) -> tuple[str, ...]:
    """What a segment reads before it makes it, besides errors: the values that the prediction keeps for it.

    Args:
        segment: its lines.
        flight: errors on their way when it begins.
    """
    made = set(flight)
    wanted: dict[str, None] = {}

    def want(names: Iterable[str | None]) -> None:
        wanted.update((n, None) for n in names if n is not None and n not in made and not n.startswith("arriving"))

    for line in segment.lines:
        want(line.reads)
        made.update(line.outs)
    want((*segment.results, *segment.flight))  # an error that does not depend on what arrives
    return tuple(wanted)


class Learning:
    """Learning, with everything above one segment done.

    Args:
        program: what learns.
        above: the same before the segment above learned, or None.
        layouts: of the errors that arrived at the segment above.
    """

    def __init__(self, program: Program, above: Learning | None, layouts: Layouts) -> None:
        self.program, self.above, self.layouts = program, above, layouts
        self.segment: int = len(program.saved) - 1 if above is None else above.segment - 1
        self._usual: bool = above is None or (above._usual and program.expects(above.segment, layouts))
        self._branches: dict[Any, Branch] = {}
        self._resume: tuple[Sweep, tuple[str, ...]] | None = None  # good for one branch: a sweep goes on only once

    def run(
        self, saved: list[Any], flight: list[Any], errors: list[Any], layouts: Layouts, watch: tuple[Ref, ...]
    ) -> tuple[list[Any], list[Any], list[Any], Learning]:
        """Let the segment learn; consumes the lists.

        To which of its operands an opaque vertex hands errors, and in which layout, shows only when it learns. Where
        it is not as believed (a custom function returns None), the segment is compiled anew and run again, so that
        what autograd leaves at None stays None.

        Args:
            saved: values that the prediction kept for this segment.
            flight: errors from the segments above that are still on their way.
            errors: that arrive at the segment's outputs.
            layouts: of those, None at outputs where none does.
            watch: values whose errors are asked for.

        Returns:
            What the engine is handed, the watched errors, the errors on their way, and how to go on.

        Raises:
            LearnError: errors of such layouts would need values that the prediction did not keep.
        """
        if not self.program.opaque:
            branch = self.branch(layouts, watch)
            results, watched, flight = branch.function(saved, flight, errors)
            return results, watched, flight, branch.below
        while True:
            branch = self.branch(layouts, watch)
            try:
                results, watched, onward = branch.function(list(saved), list(flight), list(errors))
                return results, watched, onward, branch.below
            except Surprise:
                self.program.forget_expected()
                self._branches.clear()
                self._resume = None

    def branch(self, layouts: Layouts, watch: tuple[Ref, ...]) -> Branch:
        """The segment, compiled for these errors."""
        key = (layouts, watch)
        branch = self._branches.get(key)
        if branch is None:
            with LOCK, without_autocast():
                branch = self._branches[key] = self._compile(layouts, watch)
        return branch

    def _compile(self, layouts: Layouts, watch: tuple[Ref, ...]) -> Branch:
        program, here = self.program, self.segment
        resume: tuple[Sweep, tuple[str, ...]] | None = None
        if self._usual and program.expects(here, layouts):
            lines, flight = program.learn_lines[here], program.flights[here]
        else:
            sweep, flight = self._sweep()
            lines = sweep.advance(layouts)
            resume = sweep, lines.flight
        kept = frozenset(program.saved[here])
        missing = [name for name in needs(lines, flight) if name not in kept]
        if missing:
            raise LearnError(
                f"errors of these layouts need values that the prediction did not keep: {missing[:3]}",
                hint="make the gradient of the output contiguous, e.g. multiply the output by 1 before the loss",
            )
        errors = {ref: name for part in lines.parts for ref, name in part.errors.items()}
        watched = tuple(errors.get(ref, "None") for ref in watch)
        results = tuple(name or "None" for name in lines.results)
        arriving = [f"arriving{k}" for k, spec in zip(program.outputs_of[here], layouts, strict=True) if spec]
        arguments: Sequence[tuple[str, Sequence[str]]] = [
            ("saved", program.saved[here]), ("flight", flight), ("errors", arriving)
        ]  # fmt: skip
        emitted = program.backend.emit("learn", arguments, lines.lines, [results, watched, lines.flight])
        below = Learning(program, self, layouts)
        below._resume = resume
        return Branch(emitted.function, emitted.source, below)

    def _sweep(self) -> tuple[Sweep, tuple[str, ...]]:
        """A sweep that has come down to this segment, and what is on its way when the segment begins."""
        resume, self._resume = self._resume, None
        if resume is not None:
            return resume
        if self.above is None:
            return Sweep(self.program.stitcher), ()
        path: list[Layouts] = []
        learning: Learning | None = self
        while learning is not None and learning.above is not None:
            path.append(learning.layouts)
            learning = learning.above
        sweep = Sweep(self.program.stitcher)
        flight: tuple[str, ...] = ()
        while path:
            flight = sweep.advance(path.pop()).flight
        return sweep, flight
