"""Merging over time: products with one weight, taken step by step, become one product over many steps.

A recurrent network multiplies each step's input with the same weight and adds up each step's share of that weight's
gradient. One product over the rows of several steps does the same sums in another order, in fewer and larger calls of
the library. Steps are taken a few at a time, so that little has to wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..lines import Line
from .fusable import operator_name
from .ssa import ADD

STEPS = 8  # at a time
_FEWEST = 4  # steps that are worth it


class Merged:
    """Target of a line that stands for several: no compiler takes it, and it has no effect."""


@dataclass
class _Chain:
    """A sum of products (or of sums over rows), one per step.

    Attributes:
        base: what the first term is added to, or None.
        terms: names of the terms, in order.
        adds: index of the line that adds each term, None for a first term that is added to nothing.
        total: name of the whole sum.
    """

    base: str | None
    terms: list[str]
    adds: list[int | None]
    total: str
    partial: list[str] = field(default_factory=list)


def merged(lines: Sequence[Line], returns: Sequence[tuple[str, ...]]) -> list[Line]:
    """The same program with products over time merged. Lines assign each name once."""
    return _inputs(_gradients(lines, returns), set(returns[0]) if returns else set())


# -- gradients of weights ----------------------------------------------------------------------------
def _gradients(lines: Sequence[Line], returns: Sequence[tuple[str, ...]]) -> list[Line]:
    maker = {out: line for line in lines for out in line.outs}
    at = {out: k for k, line in enumerate(lines) for out in line.outs}
    uses = Counter(name for line in lines for name in line.reads)
    uses.update(name for group in returns for name in group)
    chains = [chain for chain in _chains(lines, maker, uses) if len(chain.terms) >= _FEWEST]
    if not chains:
        return list(lines)
    longest = max(chains, key=lambda chain: len(chain.terms))
    # All chains are cut at the same lines, before the longest begins with another few steps.
    ends = [at[longest.terms[k]] - 1 for k in range(STEPS, len(longest.terms), STEPS)]
    ends.append(max(at[term] for chain in chains for term in chain.terms))
    dropped: set[int] = set()
    placed: dict[int, list[Line]] = {}
    joined: dict[tuple[int, tuple[str, ...]], str] = {}
    for chain in chains:
        dropped.update(k for k in chain.adds if k is not None)
        dropped.update(at[term] for term in chain.terms)
        started = chain.base is not None
        if chain.base is not None:  # may be a sum that others read as well
            start = Line((chain.total,), "%s.clone()", (chain.base,), target=Merged)
            placed.setdefault(at.get(chain.base, -1), []).append(start)
        for where, terms in _batches(chain.terms, at, ends):
            placed.setdefault(where, []).extend(
                _batch(chain.total, started, [maker[t] for t in terms], maker, joined, where)
            )
            started = True
    result: list[Line] = list(placed.get(-1, ()))
    for k, line in enumerate(lines):
        if k not in dropped:
            result.append(line)
        result.extend(placed.get(k, ()))
    return _without_unread(result, returns)


def _chains(lines: Sequence[Line], maker: Mapping[str, Line], uses: Mapping[str, int]) -> Iterator[_Chain]:
    open_: dict[str, _Chain] = {}
    chains: list[_Chain] = []
    for k, line in enumerate(lines):
        if line.text != ADD or line.target is not None:
            continue
        before, term = line.reads
        kind = _kind(term, maker)
        if kind is None or uses[term] != 1:
            continue
        chain = open_.pop(before, None) if uses[before] == 1 else None
        if chain is not None and _kind(chain.terms[0], maker) == kind:
            chain.terms.append(term)
            chain.adds.append(k)
        elif uses[before] == 1 and _kind(before, maker) == kind:
            chain = _Chain(None, [before, term], [None, k], "")
            chains.append(chain)
        else:
            chain = _Chain(before, [term], [k], "")
            chains.append(chain)
        chain.total = line.outs[0]
        open_[chain.total] = chain
    yield from chains


def _kind(name: str, maker: Mapping[str, Line]) -> str | None:
    """``mm`` for a product over rows ``t(g) @ h``, ``sum`` for a sum over rows, None for anything else."""
    line = maker.get(name)
    if line is None:
        return None
    if operator_name(line) == "mm" and line.text == "torch.mm(%s, %s)":
        left = maker.get(line.reads[0])
        return "mm" if left is not None and left.text == "torch.t(%s)" else None
    return "sum" if line.text == "torch.sum(%s, [0], False)" else None


def _batches(terms: Sequence[str], at: Mapping[str, int], ends: Sequence[int]) -> Iterator[tuple[int, list[str]]]:
    """The terms between one end and the next."""
    begin = 0
    for end in ends:
        stop = begin
        while stop < len(terms) and at[terms[stop]] <= end:
            stop += 1
        if stop > begin:
            yield end, list(terms[begin:stop])
        begin = stop


def _batch(
    total: str,
    started: bool,
    terms: Sequence[Line],
    maker: Mapping[str, Line],
    joined: dict[tuple[int, tuple[str, ...]], str],
    where: int,
) -> list[Line]:
    """Lines that add the terms of some steps to a sum."""
    result: list[Line] = []

    def rows(names: tuple[str, ...]) -> str:
        if len(names) == 1:
            return names[0]
        if (where, names) not in joined:
            joined[where, names] = f"rows{len(joined)}_{names[0]}"
            text = f"torch.cat([{', '.join(['%s'] * len(names))}])"
            result.append(Line((joined[where, names],), text, names, target=Merged))
        return joined[where, names]

    if len(terms[0].reads) == 2:
        errors = rows(tuple(maker[term.reads[0]].reads[0] for term in terms))
        operands: tuple[str, ...] = (errors, rows(tuple(term.reads[1] for term in terms)))
        first, onward = "torch.mm(%s.t(), %s)", "%s.addmm_(%s.t(), %s)"
    else:
        operands = (rows(tuple(term.reads[0] for term in terms)),)
        first, onward = "torch.sum(%s, [0], False)", "%s.add_(torch.sum(%s, [0], False))"
    if started:
        result.append(Line((), onward, (total, *operands)))
    else:
        result.append(Line((total,), first, operands, target=Merged))
    return result


def _without_unread(lines: Sequence[Line], returns: Sequence[tuple[str, ...]]) -> list[Line]:
    """Without the transposes that only dropped lines have read."""
    read = {name for group in returns for name in group}
    kept = []
    for line in reversed(lines):
        if line.text == "torch.t(%s)" and line.outs[0] not in read:
            continue
        read.update(line.reads)
        kept.append(line)
    kept.reverse()
    return kept


# -- inputs ------------------------------------------------------------------------------------------
def _inputs(lines: Sequence[Line], outputs: set[str]) -> list[Line]:
    """Merge linear layers whose inputs are the steps of one sequence; an output must have memory of its own."""
    sequence = {out: line.outs[0] for line in lines if operator_name(line) == "unbind" for out in line.outs}
    groups: dict[tuple[str, ...], list[int]] = {}
    for k, line in enumerate(lines):
        if operator_name(line) != "linear" or outputs.intersection(line.outs):
            continue
        if line.reads[0] in sequence and line.reads[0] not in line.reads[1:]:
            groups.setdefault((line.text, sequence[line.reads[0]], *line.reads[1:]), []).append(k)
    first: dict[int, list[Line]] = {}
    dropped: set[int] = set()
    for members in groups.values():
        if len(members) < _FEWEST:
            continue
        for start in range(0, len(members), STEPS):
            some = [lines[k] for k in members[start : start + STEPS]]
            if len(some) == 1:
                continue
            dropped.update(members[start : start + STEPS])
            first[members[start]] = _stacked(some)
    result: list[Line] = []
    for k, line in enumerate(lines):
        result.extend(first.get(k, ()))
        if k not in dropped:
            result.append(line)
    return result


def _stacked(some: Sequence[Line]) -> list[Line]:
    steps = tuple(line.reads[0] for line in some)
    stack, product = f"steps_{some[0].outs[0]}", f"all_{some[0].outs[0]}"
    return [
        Line((stack,), f"torch.stack([{', '.join(['%s'] * len(steps))}])", steps, target=Merged),
        Line((product,), some[0].text, (stack, *some[0].reads[1:]), some[0].constants, Merged),
        Line(tuple(line.outs[0] for line in some), "%s.unbind(0)", (product,), target=Merged),
    ]
