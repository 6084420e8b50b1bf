"""What a stretch of the prediction can do without, and what that brings and costs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .economy import Economy
from .rematerialise import Rematerialisation

LEVELS = 6
_TINY = 20  # values smaller than the average by this factor are kept


@dataclass(frozen=True)
class Offer:
    """One level of one stretch.

    Attributes:
        dropped: memories that are not kept.
        demanded: memories that are kept although learning does not read them.
        kept: bytes that the stretch keeps until it learns.
        extra: bytes that evaluating again takes beyond what learning holds.
        seconds: time that it takes.
        border: line before which nothing stays that is evaluated for the lines behind it; 0 if there is no such line.
    """

    dropped: frozenset[int]
    demanded: frozenset[int]
    kept: int
    extra: int
    seconds: float
    border: int = 0


class Offers:
    """Offers for stretches of lines.

    Args:
        economy: a step.

    Attributes:
        needed: predicted memories that learning reads.
        levels: prices (seconds to evaluate again, by byte) up to which values are dropped.
    """

    def __init__(self, economy: Economy) -> None:
        self._prediction = prediction = economy.prediction
        self._memories, self._size = prediction.ledger.memories, prediction.ledger.size
        self._born: dict[int, int] = {}  # first line, by memory
        self._read: dict[int, int] = {}  # last line that reads it
        self._within: list[set[int]] = []  # memories that each line makes
        for index, line in enumerate(prediction.lines):
            for name in line.reads:
                self._read.update(dict.fromkeys(self._memories[name], index))
            made = {m for name in line.outs for m in self._memories[name] if m not in self._born} - prediction.outside
            self._born.update(dict.fromkeys(made, index))
            self._within.append(made)
        self._names: dict[int, list[str]] = {}  # needed ones, by memory
        for name in sorted(economy.needed, key=prediction.maker.__getitem__):
            for memory in self._memories[name]:
                self._names.setdefault(memory, []).append(name)
        self.needed = frozenset(self._names) - prediction.outside
        fixed = {memory for name in economy.fixed for memory in self._memories[name]}
        self._price = self._prices()
        least = sum(self._size[m] for m in self.needed) / (_TINY * max(len(self.needed), 1))
        self._droppable = {
            m for m in self.needed - fixed if prediction.repeatable[self._born[m]] and self._size[m] > least
        }
        self.levels = self._thresholds()

    def _prices(self) -> dict[int, float]:
        """Seconds to make each memory again from those that learning needs anyway."""
        price: dict[int, float] = {}
        through: dict[str, float] = {}
        for index, (line, effect) in enumerate(zip(self._prediction.lines, self._prediction.effects, strict=True)):
            cost = effect.seconds
            for name in dict.fromkeys(line.reads):
                if name in through and not self.needed.issuperset(self._memories[name]):
                    cost += through[name]
            through.update(dict.fromkeys(line.outs, cost))
            price.update(dict.fromkeys(self._within[index], cost))
        return price

    def _thresholds(self) -> list[float]:
        """Prices at which equal parts of what can be dropped are dropped."""
        rates = sorted((self._rate(m), self._size[m]) for m in self._droppable)
        total, seen = sum(size for _, size in rates), 0
        levels: list[float] = []
        for rate, size in rates:
            seen += size
            while len(levels) < LEVELS and seen * LEVELS >= total * (len(levels) + 1):
                levels.append(rate)
        return sorted(set(levels))

    def _rate(self, memory: int) -> float:
        return self._price[memory] / self._size[memory]

    def cuts(self, count: int) -> list[int]:
        """About so many places between lines, where few bytes cross, with equal amounts made between them."""
        lines = len(self._prediction.lines)
        change, made = np.zeros(lines + 1), np.zeros(lines)
        for memory, born in self._born.items():
            made[born] += self._size[memory]
            change[born] += self._size[memory]
            change[max(self._read.get(memory, born), born)] -= self._size[memory]
        crossing = np.cumsum(change)[:lines]  # bytes made up to each line that the lines after it read
        mass = np.cumsum(made)
        cuts = [0]
        if not lines or mass[-1] == 0:
            return [0, lines]
        self._crossing = crossing
        width = mass[-1] / count
        while cuts[-1] < lines:
            before = mass[cuts[-1] - 1] if cuts[-1] else 0.0
            first = max(int(np.searchsorted(mass, before + width / 2)), cuts[-1])
            last = max(int(np.searchsorted(mass, before + width * 1.5, side="right")), first + 1)
            if last >= lines:
                break
            window = crossing[first:last]
            cuts.append(first + len(window) - int(np.argmin(window[::-1])))
        return [*cuts, lines]

    def middle(self, cuts: Sequence[int]) -> int:
        """Place of the inner cut that fewest bytes cross, near the middle."""
        places = range(1, len(cuts) - 1)
        return min(places, key=lambda k: (self._crossing[cuts[k] - 1], abs(2 * k - len(cuts))))

    def whole(self, begin: int, end: int) -> int:
        """Bytes that learning reads, of what the lines from `begin` to `end` make."""
        return sum(self._size[m] for made in self._within[begin:end] for m in made & self.needed)

    def all(self, begin: int, end: int) -> list[Offer]:
        """What there is to drop in the lines from `begin` to `end` (exclusive), by level; the first one is nothing."""
        inside: set[int] = set().union(*self._within[begin:end])
        whole = self.whole(begin, end)
        offers = [Offer(frozenset(), frozenset(), whole, 0, 0.0)]
        can = {m for m in inside & self._droppable if self._read.get(m, 0) < end}
        before = -1
        for level in self.levels:
            drop = {m for m in can if self._rate(m) <= level}
            if len(drop) != before:
                before = len(drop)
                offers.append(self._offer(begin, drop, whole))
        return offers

    def _offer(self, begin: int, drop: set[int], whole: int) -> Offer:
        prediction = self._prediction
        there = (self.needed - drop) | prediction.outside
        lines, demanded = self._again(begin, drop, there)
        drop = drop - demanded
        demanded -= self.needed
        made = set().union(*(self._within[i] for i in lines)) - there - drop
        saved = sum(self._size[m] for m in drop) - sum(self._size[m] for m in demanded)
        extra = max((self._size[m] for m in made), default=0)
        return Offer(frozenset(drop), frozenset(demanded), whole - saved, extra, self._seconds(lines))

    def _again(self, begin: int, drop: Collection[int], there: Collection[int]) -> tuple[set[int], set[int]]:
        """Lines from `begin` on that make what learning reads of some memories, and what has to be there for that."""
        prediction, memories = self._prediction, self._memories
        demanded: set[int] = set()
        lines: set[int] = set()
        stack = [name for m in drop for name in self._names[m]]
        while stack:
            name = stack.pop()
            index = prediction.maker.get(name)
            if index is None or index in lines or all(m in there or m in demanded for m in memories[name]):
                continue
            if index < begin or not prediction.repeatable[index]:
                demanded.update(m for m in memories[name] if m not in there)
                continue
            for member in prediction.unit[index]:
                lines.add(member)
                stack += prediction.again(member).reads
        return lines, demanded

    def _seconds(self, lines: Collection[int]) -> float:
        return sum(self._prediction.effects[i].seconds for i in lines)

    def lent(self, begin: int, middle: int, end: int, lower: Offer, upper: Offer) -> Offer | None:
        """Both halves of a stretch without what crosses its middle; None if that brings nothing.

        The lower half is evaluated once more for the upper half's sake, and again when it learns itself.
        """
        inside: set[int] = set().union(*self._within[begin:middle])
        cross = {m for m in inside & self._droppable if middle <= self._read.get(m, 0) < end} - lower.dropped
        dropped = lower.dropped | cross
        there = (self.needed - dropped) | lower.demanded | self._prediction.outside
        lines, demanded = self._again(begin, cross, there)
        size = sum(self._size[m] for m in cross)
        if not cross or demanded or min(lines, default=begin) < begin:
            return None
        seconds = lower.seconds + upper.seconds + self._seconds(lines)
        demands = lower.demanded | upper.demanded
        return Offer(dropped | upper.dropped, demands, lower.kept + upper.kept - size, upper.extra, seconds, middle)

    def choice(self, taken: Sequence[Offer]) -> Rematerialisation:
        """What meets the offers."""
        dropped = frozenset().union(*(offer.dropped for offer in taken))
        demanded = frozenset().union(*(offer.demanded for offer in taken))
        there = (self.needed - dropped) | demanded | self._prediction.outside
        kept = frozenset(name for name in self._prediction.maker if there.issuperset(self._memories[name]))
        return Rematerialisation(self._prediction, kept, tuple(sorted(o.border for o in taken if o.border)))
