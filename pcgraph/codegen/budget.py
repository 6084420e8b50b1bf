"""Which values a prediction keeps if memory is to be low: as few bytes as a given time allows.

The prediction is cut into stretches where little crosses; what crosses a cut is kept. A stretch keeps everything, or
drops values up to some price (`offers`), which are evaluated again when the stretch learns. While it learns, a stretch
needs its own values, and those below it wait. So, from the inputs up, the bytes that wait are all that choices below
have to do with choices above, and the cheapest choice under a peak is found by dynamic programming over cuts and
bytes. What it promises is then followed line by line (`economy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .economy import Economy
from .offers import Offer, Offers
from .rematerialise import Rematerialisation

TIME = 0.27  # of a step's estimated time may be spent on evaluating again
GOALS = tuple(k / 200 for k in range(20, 200))  # of the peak, the best one first
CUTS = 64
SPANS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # lengths of stretches, in cuts
STEPS = (128, 256, 1024)  # in which waiting bytes are counted; what is rounded up is room in the end
_TRIES = 6


def choose(economy: Economy) -> Rematerialisation:
    """The choice that holds least memory among those that cost little enough time."""
    best = Rematerialisation(economy.prediction, frozenset(economy.prediction.maker))
    lowest, allowed = economy.default.peak, TIME * economy.seconds
    if not lowest:
        return best  # nothing is kept
    market = Market(economy, Offers(economy))
    tried: set[tuple[frozenset[str], tuple[int, ...]]] = set()
    for steps in STEPS:
        below, first = -1, len(GOALS)  # by bisection: the lowest goal that can be reached
        while first - below > 1:
            middle = (below + first) // 2
            reached = market.cheapest(GOALS[middle] * economy.default.peak, allowed, steps) is not None
            below, first = (below, middle) if reached else (middle, first)
        for goal in GOALS[first : first + _TRIES]:
            choice = market.cheapest(goal * economy.default.peak, allowed, steps)
            if choice is None or (choice.kept, choice.borders) in tried:
                continue
            tried.add((choice.kept, choice.borders))
            outcome = economy.outcome(choice)
            if outcome.peak < lowest and outcome.seconds <= allowed:
                best, lowest = choice, outcome.peak
    return best


@dataclass(frozen=True)
class _Choice:
    begin: int  # in cuts
    need: float  # most bytes that are held while the stretch learns, what waits below it not counted
    offer: Offer


class Market:
    """All stretches with what they offer."""

    def __init__(self, economy: Economy, offers: Offers) -> None:
        self._offers = offers
        cuts = offers.cuts(CUTS)
        below = np.concatenate([[0], np.cumsum([offers.whole(*pair) for pair in pairwise(cuts)])])  # bytes that wait
        held, starts = _held(economy, cuts)
        plain: dict[tuple[int, int], list[Offer]] = {}
        self._ends: list[list[_Choice]] = [[] for _ in cuts]

        def need(begin: int, end: int, extra: int) -> float:
            return float(max(held[begin:end].max(), starts[end - 1] + extra) - below[begin])

        def offered(begin: int, end: int) -> list[Offer]:
            if (begin, end) not in plain:
                plain[begin, end] = offers.all(cuts[begin], cuts[end])
            return plain[begin, end]

        for end in range(1, len(cuts)):
            for begin in (end - span for span in SPANS if span <= end):
                found = offered(begin, end)[end > begin + 1 :]  # to keep everything, a stretch need not be long
                self._ends[end] += [_Choice(begin, need(begin, end, offer.extra), offer) for offer in found]
                if end == begin + 1:
                    continue
                middle = begin + offers.middle(cuts[begin : end + 1])
                lower, upper = offered(begin, middle), offered(middle, end)
                for k in range(max(len(lower), len(upper))):
                    pair = lower[min(k, len(lower) - 1)], upper[min(k, len(upper) - 1)]
                    offer = offers.lent(cuts[begin], cuts[middle], cuts[end], *pair)
                    if offer is not None:
                        above = pair[0].kept + need(middle, end, pair[1].extra)
                        needed = max(above, need(begin, middle, pair[0].extra))
                        self._ends[end].append(_Choice(begin, needed, offer))

    def cheapest(self, bound: float, allowed: float, steps: int) -> Rematerialisation | None:
        """What keeps the peak under a bound in the least time; None if that is too much."""
        step = bound / steps
        waiting = np.arange(steps + 1) * step
        cost = np.full((len(self._ends), steps + 1), np.inf)  # by cut and bytes that wait below it
        cost[0, 0] = 0.0
        taken = np.zeros(cost.shape, dtype=int)
        choices: list[tuple[int, int, Offer]] = []  # where the stretch begins, rise of what waits, offer
        for end, found in enumerate(self._ends):
            for choice in found:
                offer, room = choice.offer, bound - choice.need
                rise = int(np.ceil(offer.kept / step))
                if rise > steps or room < 0:
                    continue
                fits = min(int(np.searchsorted(waiting, room, side="right")), steps + 1 - rise)
                now = cost[choice.begin, :fits] + offer.seconds
                better = now < cost[end, rise : rise + fits]
                cost[end, rise : rise + fits][better] = now[better]
                taken[end, rise : rise + fits][better] = len(choices)
                choices.append((choice.begin, rise, offer))
        place, waits = len(cost) - 1, int(np.argmin(cost[-1]))
        if not cost[place, waits] <= allowed:
            return None
        chosen = []
        while place:
            place, rise, offer = choices[taken[place, waits]]
            waits -= rise
            chosen.append(offer)
        return self._offers.choice(chosen)


def _held(economy: Economy, cuts: list[int]) -> tuple[Any, Any]:
    """Bytes held while the lines between two cuts learn, if everything is kept: the most, and the first."""
    prediction = economy.prediction
    place = {vertex: int(np.searchsorted(cuts, i, side="right")) - 1 for i, vertex in enumerate(prediction.vertices)}
    held, first = np.zeros(len(cuts) - 1), np.zeros(len(cuts) - 1)
    for vertex, size in economy.default.held:
        k = place[vertex]
        first[k] = first[k] or size
        held[k] = max(held[k], size)
    return held, first
