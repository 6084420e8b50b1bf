"""A whole step in bytes and seconds, for whatever the prediction keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.vertex import TensorSpec
from .footprint import live
from .learning import needs
from .prediction import Prediction
from .rematerialise import Rematerialisation
from .sweep import SegmentLines


@dataclass(frozen=True)
class Outcome:
    """What a choice comes to.

    Attributes:
        peak: most bytes that are held at once, inputs, parameters and outputs not counted.
        seconds: estimated time of what is evaluated again.
        held: bytes by line of learning, in order, with the line's vertex.
    """

    peak: int
    seconds: float
    held: tuple[tuple[str, int], ...]


class Economy:
    """One scheduled graph's prediction and learning.

    Args:
        prediction: its lines.
        segments: learning as it is if everything is kept, the last segment first.
        arriving: layouts of the errors that come from outside, by name, per segment.

    Attributes:
        needed: names of predicted values that learning reads.
        fixed: those of them that learning hands on as they are.
        seconds: estimated time of prediction and learning.
    """

    def __init__(
        self, prediction: Prediction, segments: Sequence[SegmentLines], arriving: Sequence[dict[str, TensorSpec]]
    ) -> None:
        self.prediction, self._segments, self._arriving = prediction, segments, arriving
        self.needed = frozenset(name for names in self._saved(segments) for name in names if name in prediction.maker)
        self.fixed = frozenset(
            name for s in segments for name in (*s.results, *s.flight) if name is not None and name in prediction.maker
        )
        self.default = self.outcome(Rematerialisation(prediction, frozenset(prediction.maker)))
        self.seconds = sum(e.seconds for e in prediction.effects) + self._learning

    def _saved(self, segments: Sequence[SegmentLines]) -> list[tuple[str, ...]]:
        flights = [(), *(segment.flight for segment in segments)]
        return [needs(segment, flight) for segment, flight in zip(segments, flights, strict=False)]

    def outcome(self, choice: Rematerialisation) -> Outcome:
        """Follow a step line by line."""
        prediction = self.prediction
        segments = [choice.insert(segment, bare=True) for segment in self._segments]
        saved = self._saved(segments)
        below: list[set[str]] = [set() for _ in saved]  # what lower segments still need
        for k in reversed(range(len(saved) - 1)):
            below[k] = below[k + 1] | set(saved[k + 1])
        spaces = [effect.workspace for effect in prediction.effects]
        peak = max(live(prediction.ledger, prediction.lines, spaces, (), below[0].union(saved[0])), default=0)
        held: list[tuple[str, int]] = []
        results: list[str] = []
        again = 0.0
        self._learning = 0.0
        carried = prediction.ledger
        for k, segment in enumerate(segments):
            flight = segments[k - 1].flight if k else ()
            ledger = carried.fork(dict.fromkeys((*below[k], *saved[k], *flight, *results)))
            for name, spec in self._arriving[k].items():
                ledger.enter(name, spec, counts=True)
            spaces = []
            for part in segment.parts:
                for line in part.lines:
                    effect = ledger.run(line)
                    spaces.append(effect.workspace)
                    if part.again:
                        again += effect.seconds
                    else:
                        self._learning += effect.seconds
            made = [name for name in segment.results if name is not None]
            given = dict.fromkeys((*below[k], *saved[k], *flight, *results, *self._arriving[k]))
            kept = (*below[k], *results, *made, *segment.flight, *self._arriving[k])
            bytes_held = live(ledger, segment.lines, spaces, given, kept)
            owners = [part.vertex for part in segment.parts for _ in part.lines]
            held += zip(owners, bytes_held, strict=True)
            results += made
            carried = ledger
        return Outcome(max([peak, *(size for _, size in held)]), again, tuple(held))
