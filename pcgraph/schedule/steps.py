"""Sets of inference steps, as disjoint intervals: small for every rule, however long inference runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Steps:
    """An immutable set of step numbers.

    >>> Steps((0, 2)) | Steps((3, 5), (9, 9))
    Steps({0..5, 9})
    >>> (Steps((0, 5)) & Steps((4, 9))).shift(-1)
    Steps({3..4})
    >>> 4 in Steps((3, 5)), list(Steps((1, 2), (7, 7)))
    (True, [1, 2, 7])
    """

    __slots__ = ("intervals",)

    def __init__(self, *intervals: tuple[int, int]) -> None:
        merged: list[tuple[int, int]] = []
        for low, high in sorted(i for i in intervals if i[0] <= i[1]):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        self.intervals = tuple(merged)

    @staticmethod
    def union(sets: Iterable[Steps]) -> Steps:
        """All steps that are in any of the sets."""
        return Steps(*(interval for s in sets for interval in s.intervals))

    def __or__(self, other: Steps) -> Steps:
        return Steps(*self.intervals, *other.intervals)

    def __and__(self, other: Steps) -> Steps:
        return Steps(*((max(a, c), min(b, d)) for a, b in self.intervals for c, d in other.intervals))

    def shift(self, by: int) -> Steps:
        """Every step moved by `by`."""
        return Steps(*((low + by, high + by) for low, high in self.intervals))

    def __contains__(self, step: int) -> bool:
        return any(low <= step <= high for low, high in self.intervals)

    def __iter__(self) -> Iterator[int]:
        return (step for low, high in self.intervals for step in range(low, high + 1))

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self.intervals)

    def __bool__(self) -> bool:
        return bool(self.intervals)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Steps) and self.intervals == other.intervals

    def __hash__(self) -> int:
        return hash(self.intervals)

    def __repr__(self) -> str:
        return "Steps({" + ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in self.intervals) + "})"
