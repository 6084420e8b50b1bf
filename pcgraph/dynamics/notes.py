"""Taking down the state of a network into a trace, step by step; only what was asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from ..errors import PCGraphError
from ..graph import Ref, Role
from .network import Network
from .trace import Trace, label, qualified


class Notes:
    """Writes one trace.

    Args:
        trace: to be filled.
        network: at the first prediction.
        only: patterns of the vertices whose errors and values are kept.

    Raises:
        PCGraphError: a pattern matches nothing.
    """

    def __init__(self, trace: Trace, network: Network, only: Sequence[str]) -> None:
        self._trace, self._wanted = trace, set(trace.record)
        names = list(dict.fromkeys(ref.vertex for ref in network.eps))
        for pattern in only:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise PCGraphError(f"only={pattern!r} matches no value node", hint="see print(pcn.graph) for the names")
        self._kept = {name for name in names if any(fnmatchcase(name, pattern) for pattern in only)}
        self._backprop = network.backprop() if "distance" in self._wanted else None
        self._at_end = trace.rule.timing(trace.graph).update == "end"

    def look(self, network: Network) -> None:
        """Before what is incoming is collected: what would be learned now."""
        if self._backprop is not None and self._at_end:
            self._trace.distance.append(_distance(network.lessons(), self._backprop))

    def take(self, network: Network, learning: Collection[str]) -> None:
        """Take down the state of time t, after `network.collect(learning)`."""
        trace = self._trace
        energies = {name: energy.item() for name, energy in network.energies().items()}
        loss = network.loss.item()
        trace.losses.append(loss)
        trace.energies.append(loss + sum(energies.values()))
        if "energies" in self._wanted:
            for name, energy in energies.items():
                trace.vertex_energies.setdefault(name, []).append(energy)
        active = 0
        for ref, error in network.eps.items():
            active += bool(error.any())
            if "norms" in self._wanted:
                trace.norms.setdefault(label(ref), []).append(torch.linalg.vector_norm(error).item())
            if ref.vertex in self._kept:
                if "errors" in self._wanted:
                    trace.errors.setdefault(label(ref), []).append(error)
                if "values" in self._wanted:
                    trace.values.setdefault(label(ref), []).append(network.x[ref])
            if ref.vertex in learning:
                trace.update_errors[label(ref)] = error
                if trace.graph[ref.vertex].role is Role.INPUT:
                    trace.input_gradients[ref.vertex] = -error
        trace.active.append(active)
        self._learn(network)

    def _learn(self, network: Network) -> None:
        trace = self._trace
        for vertex in trace.graph.role(Role.PARAMETER):
            received = network.incoming.get(Ref(vertex.name))
            if received is not None:
                name = qualified(vertex)
                before = trace.gradients.get(name)
                trace.gradients[name] = -received if before is None else before - received
        if self._backprop is not None and not self._at_end:
            parameters = {vertex.name: qualified(vertex) for vertex in trace.graph.role(Role.PARAMETER)}
            learned = {v: -trace.gradients[name] for v, name in parameters.items() if name in trace.gradients}
            trace.distance.append(_distance(learned, self._backprop))

    def end(self, network: Network, state: Any) -> None:
        """Inference is done."""
        trace = self._trace
        trace.rest.update(getattr(state, "rest", {}))
        trace.final_values.update((label(ref), network.x[ref]) for ref in network.eps)
        trace.final_errors.update((label(ref), error) for ref, error in network.eps.items())
        # Parameters and inputs learn from the outputs down; list them in the model's order instead.
        parameters = [qualified(vertex) for vertex in trace.graph.role(Role.PARAMETER)]
        inputs = [vertex.name for vertex in trace.graph.role(Role.INPUT)]
        trace.gradients = {name: trace.gradients[name] for name in parameters if name in trace.gradients}
        trace.input_gradients = {name: trace.input_gradients[name] for name in inputs if name in trace.input_gradients}


def _distance(learned: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """``||a - b|| / ||b||`` over all parameters; one that has learned nothing counts as 0. 0 where both are 0."""
    apart = size = 0.0
    for name, slope in wanted.items():
        gap = slope - learned[name] if name in learned else slope
        apart += torch.linalg.vector_norm(gap).item() ** 2
        size += torch.linalg.vector_norm(slope).item() ** 2
    return float(apart**0.5 / size**0.5) if size else (float("inf") if apart else 0.0)
