"""What a simulation leaves behind: energies and errors over time, and the gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ..errors import PCGraphError
from ..graph import PCGraph, Ref, Role, Vertex

if TYPE_CHECKING:
    from .network import Network
    from .rules import Rule

RECORDS = ("energies", "errors", "values")
_ROWS = 12  # of the printed table


@dataclass(eq=False)
class Trace:
    """A run of inference, t = 0 .. T. Vertices are named as in `graph`; output k > 0 of a vertex is ``"name.k"``.

    Attributes:
        graph: the graph that was simulated, relays and readouts included.
        rule, coordinates: how.
        record: what was kept over time, of ``"energies"``, ``"errors"``, ``"values"``.
        steps: T. One more than `graph.steps` under Z-IL when an input asks for its gradient.
        energies: [T+1] total: the loss, and 1/2 ||eps||^2 of every hidden vertex. For the loss 1/2 ||y - mu||^2 this
            is the paper's F; for any loss it is what inference descends.
        losses: [T+1] the loss at the outputs' predictions of time t.
        active: [T+1] number of error nodes that are not 0.
        vertex_energies: hidden vertex -> [T+1], if recorded.
        errors: value -> [T+1] tensors of eps, paper's sign, if recorded.
        values: value -> [T+1] tensors of x, if recorded.
        update_errors: value -> eps at the vertex's update time; always kept. Under Z-IL ``eps_v(d_v) = -dL/dmu_v``.
        gradients: parameter -> gradient in PyTorch's sign, like `p.grad`; named by the model's qualified name,
            or by the vertex where it has none. A parameter that no error reaches has no entry.
        input_gradients: the same for inputs, by vertex name.
        outputs: what the network predicts at t = 0, as the model does.
    """

    graph: PCGraph
    rule: Rule
    coordinates: str
    record: Collection[str]
    outputs: list[Tensor]
    energies: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    active: list[int] = field(default_factory=list)
    vertex_energies: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, list[Tensor]] = field(default_factory=dict)
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    update_errors: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    input_gradients: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.record) - set(RECORDS))
        if unknown:
            raise PCGraphError(f"record={unknown} is not known", hint=f"choose from {', '.join(RECORDS)}")

    @property
    def steps(self) -> int:
        return len(self.energies) - 1

    @property
    def depth(self) -> dict[str, int]:
        """Depth of every vertex that an error reaches."""
        return dict(self.graph.depth)

    def error(self, vertex: str | Ref, t: int) -> Tensor:
        """``eps_v(t)``, paper's sign; `vertex` is a name, ``"name.k"`` for output k, or a `Ref`.

        Raises:
            PCGraphError: no such error node or step, or errors were not recorded and t is not the update time.
        """
        name = label(vertex) if isinstance(vertex, Ref) else vertex
        if name not in self.update_errors:
            raise PCGraphError(f"{name!r} has no error node", hint="see trace.update_errors for those that there are")
        if not 0 <= t <= self.steps:
            raise PCGraphError(f"there is no step {t}", hint=f"the simulation ran from 0 to {self.steps}")
        if name in self.errors:
            return self.errors[name][t]
        depth = self.graph.depth[name if name in self.graph.depth else name.rpartition(".")[0]]
        if self.rule.learns(depth, t, t == self.steps):
            return self.update_errors[name]
        raise PCGraphError(f"the error of {name!r} at step {t} was not kept", hint='simulate with record=("errors",)')

    def note(self, network: Network, learning: Collection[str]) -> None:
        """Take down the state of time t, after `network.collect(learning)`."""
        energies = {name: energy.item() for name, energy in network.energies().items()}
        loss = network.loss.item()
        self.losses.append(loss)
        self.energies.append(loss + sum(energies.values()))
        if "energies" in self.record:
            for name, energy in energies.items():
                self.vertex_energies.setdefault(name, []).append(energy)
        active = 0
        for ref, error in network.eps.items():
            active += bool(error.any())
            if "errors" in self.record:
                self.errors.setdefault(label(ref), []).append(error)
            if "values" in self.record:
                self.values.setdefault(label(ref), []).append(network.x[ref])
            if ref.vertex in learning:
                self.update_errors[label(ref)] = error
                if self.graph[ref.vertex].role is Role.INPUT:
                    self.input_gradients[ref.vertex] = -error
        self.active.append(active)
        self._learn(network)

    def _learn(self, network: Network) -> None:
        for vertex in self.graph.role(Role.PARAMETER):
            received = network.incoming.get(Ref(vertex.name))
            if received is not None:
                name = _qualified(vertex)
                before = self.gradients.get(name)
                self.gradients[name] = -received if before is None else before - received

    def sort(self) -> None:
        """Parameters and inputs learn from the outputs down; list them in the model's order instead."""
        parameters = [_qualified(vertex) for vertex in self.graph.role(Role.PARAMETER)]
        inputs = [vertex.name for vertex in self.graph.role(Role.INPUT)]
        self.gradients = {name: self.gradients[name] for name in parameters if name in self.gradients}
        self.input_gradients = {name: self.input_gradients[name] for name in inputs if name in self.input_gradients}

    def __str__(self) -> str:
        head = f"{self.rule}, {self.coordinates} coordinates: T={self.steps}, {len(self.update_errors)} error nodes"
        rows = range(self.steps + 1)
        shown = [t for t in rows if t < _ROWS - 2 or t > self.steps - 2] if len(rows) > _ROWS else list(rows)
        lines = [head, f"{'t':>6}  {'energy':>12}  {'loss':>12}  {'active':>6}"]
        for before, t in zip([-1, *shown], shown, strict=False):
            if t > before + 1:
                lines.append(f"{'...':>6}")
            lines.append(f"{t:>6}  {self.energies[t]:>12.6g}  {self.losses[t]:>12.6g}  {self.active[t]:>6}")
        return "\n".join(lines)


def _qualified(parameter: Vertex) -> str:
    return parameter.module_path or parameter.name


def label(ref: Ref) -> str:
    """Name of a value: its vertex, with the output behind it where that is not the first."""
    return f"{ref.vertex}.{ref.output}" if ref.output else ref.vertex
