"""Checkpoints: parts of the prediction that keep nothing and are evaluated once more when their errors are due.

The lines are those of the prediction, effects included, and they draw the same random numbers again: that is what
``torch.utils.checkpoint`` does, and so buffers and gradients come out the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from ..graph import PCGraph, Role
from ..graph.vertex import Checkpoint
from .lines import Line, fresh_name
from .sweep import VertexLines

State = tuple[torch.Tensor, list[torch.Tensor]]


def random_state() -> State:
    """State of the generators that a model on the CPU or on CUDA draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda


def swap_random_state(state: State) -> State:
    """Set the state of the generators; return the one that they had."""
    before = random_state()
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
    return before


class Recomputation:
    """Which vertices are evaluated again, and with what around them.

    Args:
        graph: all vertices.
        segments: learning vertices by segment; a checkpoint that lies across a seam keeps its values instead.
    """

    def __init__(self, graph: PCGraph, segments: Sequence[Sequence[str]]) -> None:
        place = {name: s for s, names in enumerate(segments) for name in names}
        members: dict[Checkpoint, list[str]] = {}
        for vertex in graph.vertices.values():
            if vertex.checkpoint is not None and vertex.role is Role.OPERATION:
                members.setdefault(vertex.checkpoint, []).append(vertex.name)
        self.members: dict[Checkpoint, list[str]] = {
            region: names
            for region, names in members.items()
            if len({place[name] for name in names if name in place}) == 1
        }
        self.of = {name: region for region, names in self.members.items() for name in names}
        random = {name for name, v in graph.vertices.items() if v.operation is not None and v.operation.random}
        effects = {name for name, v in graph.vertices.items() if v.effect}
        self._kept = random | effects
        self._random = {
            region: f"rng_{region.number}"
            for region, names in self.members.items()
            if region.keeps_random_state and not random.isdisjoint(names)
        }

    def before(self, name: str) -> list[Line]:
        """What the prediction does before a vertex: remember the random state where a checkpoint begins."""
        region = self.of.get(name)
        if region is None or region not in self._random or self.members[region][0] != name:
            return []
        return [call_line(random_state, (), self._random[region])]

    def again(self, region: Checkpoint, predicted: Mapping[str, VertexLines]) -> list[VertexLines]:
        """The prediction of a checkpoint, once more."""
        names = self.members[region]
        parts = [VertexLines(name, predicted[name].evaluation, again=True) for name in names]
        state = self._random.get(region)
        if state is not None:
            old = f"{state}_outside"
            parts.insert(0, VertexLines(names[0], (call_line(swap_random_state, (state,), old),), again=True))
            parts.append(VertexLines(names[-1], (call_line(swap_random_state, (old,), None),), again=True))
        return parts

    def pruned(self, parts: Iterable[VertexLines]) -> tuple[VertexLines, ...]:
        """The parts without those evaluations that nobody needs and that have no effect."""
        live: set[str] = set()
        kept = []
        for part in reversed(list(parts)):
            outs = {out for line in part.lines for out in line.outs}
            effect = part.vertex in self._kept or not outs or any(out.startswith("rng_") for out in outs)
            if part.again and not effect and live.isdisjoint(outs):
                continue
            live.update(read for line in part.lines for read in line.reads)
            kept.append(part)
        kept.reverse()
        return tuple(kept)


def call_line(function: object, reads: tuple[str, ...], out: str | None) -> Line:
    """A line that calls a function of ours."""
    name = fresh_name()
    text = f"{name}({', '.join(['%s'] * len(reads))})"
    return Line((out,) if out else (), text, reads, ((name, function),))
