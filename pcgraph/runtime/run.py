"""One prediction, ready to learn: what it saved, segment by segment, and the errors that are on their way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..codegen import numerics_kept
from ..errors import LearnError
from .bridge import layout
from .checkpoints import checkpointed, hooks_off

if TYPE_CHECKING:
    from ..codegen import Learning
    from .compiled import Compiled

_FREED = (
    "Trying to run the learning phase a second time: the values that the prediction saved were freed after the first "
    "time. Specify retain_graph=True if you need to learn twice from one prediction."
)
_ELSEWHERE = object()  # stands for a value that was handed over
_TOKEN = torch.empty(0)  # tells the engine that a segment comes before another; nothing is in it


class Run:
    """State of one call between prediction and learning.

    Args:
        compiled: what predicts.
        values: of the program's externals; the list is emptied.
        leaves: those of them that receive gradients.
    """

    def __init__(self, compiled: Compiled, values: list[Any], leaves: Sequence[torch.Tensor]) -> None:
        self.leaves = tuple(leaves)
        self.checkpointed = checkpointed()
        self.outputs: list[Any] = []
        self._compiled = compiled
        self._values: list[Any] = values
        self._saved: list[list[Any] | None] = []
        self._onward: tuple[list[Any], Learning] | None = None

    def predict(self) -> None:
        """Run the prediction. To be called without gradients."""
        compiled = self._compiled
        given = list(self._values) if compiled.first else ()
        if self.checkpointed:
            with hooks_off():
                outputs, *saved = compiled.program.predict(self._values)
        else:
            outputs, *saved = compiled.program.predict(self._values)
        self.outputs, self._saved = outputs, list(saved)
        self._versions = compiled.versions(saved, outputs, given)
        for k in compiled.plain:  # detached: a view of an output that learns would come to need a gradient with it
            outputs[k] = outputs[k].detach()

    def present(self, segment: int) -> tuple[torch.Tensor, ...]:
        """The outputs of one segment, and a token for the next."""
        if segment == 0:
            self.predict()
        program, outputs = self._compiled.program, self.outputs
        shown = []
        for k in program.outputs_of[segment]:
            shown.append(self._compiled.presentable(k, outputs[k], self._saved))
            outputs[k] = None  # autograd's node would hold what holds the node
        if segment < len(program.saved) - 1:
            shown.append(_TOKEN.clone())
        return tuple(shown)

    def hand_over(self, segment: int) -> list[torch.Tensor]:
        """The tensors that were saved for a segment; they are autograd's now, and come back to `learn`."""
        saved = self._saved[segment] or []
        self._saved[segment] = [_ELSEWHERE if isinstance(value, torch.Tensor) else value for value in saved]
        return [value for value in saved if isinstance(value, torch.Tensor)]

    def learn(
        self,
        segment: int,
        errors: Sequence[torch.Tensor | None],
        kept: Iterator[torch.Tensor] | None = None,
        *,
        keep: bool,
    ) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the segment's sources from the errors of its outputs (and the token's).

        Args:
            segment: what learns.
            errors: of its outputs.
            kept: yields the values that were handed over, where they were.
            keep: this may be done a second time.

        Raises:
            RuntimeError: the saved values were freed, or changed since the prediction.
        """
        compiled, saved = self._compiled, self._saved[segment]
        program = compiled.program
        if saved is None:
            raise RuntimeError(_FREED)
        if compiled.stale is not None:
            raise RuntimeError(compiled.stale)
        if self.checkpointed and kept is not None:
            saved = [next(kept) if value is _ELSEWHERE else value for value in saved]
            next(kept, None)  # at its end, an iterator lets go
        else:
            compiled.check_versions(segment, saved, self._versions)
        if keep:
            saved = list(saved)
        else:
            self._saved[segment] = None
        token = [None] if segment else []
        learning, flight = self._from_above(segment, errors)
        arriving = [error for error in errors[: len(program.outputs_of[segment])] if error is not None]
        if not arriving and not flight:
            return (*token, *(None for _ in program.ends[segment]))
        if any(error.layout is not torch.strided for error in arriving):
            self._refuse_sparse(segment, errors)
        layouts = tuple(None if e is None else layout(e) for e in errors[: len(program.outputs_of[segment])])
        if program.economical:
            with numerics_kept():
                results, watched, flight, below = learning.run(saved, flight, arriving, layouts, compiled.watch)
        else:
            results, watched, flight, below = learning.run(saved, flight, arriving, layouts, compiled.watch)
        if compiled.watch:
            compiled.report(watched)
        if segment:
            self._onward = (flight, below)
            return (_TOKEN, *results)
        return tuple(results)

    def _refuse_sparse(self, segment: int, errors: Sequence[torch.Tensor | None]) -> None:
        """Raise if the error of a dense output is sparse: no program is proven on such."""
        graph = self._compiled.program.graph
        for k, error in zip(self._compiled.program.outputs_of[segment], errors, strict=False):
            dense = len(graph.spec(graph.outputs[k]).stride) == len(graph.spec(graph.outputs[k]).shape)
            if error is not None and error.layout is not torch.strided and dense:
                raise LearnError(
                    f"the gradient of a network's output arrives as a {error.layout} tensor",
                    vertex=str(graph.outputs[k]),
                    hint="let the loss hand on a dense one (embedding with sparse=False, grad.to_dense())",
                )

    def _from_above(self, segment: int, errors: Sequence[torch.Tensor | None]) -> tuple[Learning, list[Any]]:
        """How learning goes on at a segment, and the errors on their way to it."""
        program = self._compiled.program
        if segment == len(program.saved) - 1:
            return program.start, []
        onward, self._onward = self._onward, None
        if errors[-1] is not None and onward is not None:
            flight, learning = onward
            return learning, flight
        return program.untouched(segment), []
