"""What a simulation leaves behind: energies and errors over time, and the gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import PCGraphError
from ..graph import PCGraph, Ref, Vertex
from . import frames, plots

if TYPE_CHECKING:
    from .rule import Rule

RECORDS = ("energies", "norms", "errors", "values", "distance")
_ROWS = 12  # of the printed table


@dataclass(eq=False)
class Trace:
    """A run of inference, t = 0 .. T. Vertices are named as in `graph`; output k > 0 of a vertex is ``"name.k"``.

    Attributes:
        graph: the graph that was simulated, relays and readouts included.
        rule, coordinates: how.
        record: what was kept over time, of ``"energies"``, ``"norms"``, ``"errors"``, ``"values"``, ``"distance"``.
        steps: T. One more than `graph.steps` under Z-IL when an input asks for its gradient.
        energies: [T+1] total: the loss, and 1/2 ||eps||^2 of every hidden vertex. For the loss 1/2 ||y - mu||^2 this
            is the paper's F; for any loss it is what inference descends.
        losses: [T+1] the loss at the outputs' predictions of time t.
        active: [T+1] number of error nodes that are not 0.
        vertex_energies: hidden vertex -> [T+1], if recorded.
        norms: value -> [T+1] ``||eps_v||``, if recorded.
        distance: [T+1] ``||g(t) - g|| / ||g||`` over all parameters, if recorded: g is backprop's gradient, by the same
            local steps at the forward pass, and g(t) what the parameters have learned by t; of rules that learn at the
            end, what they would learn if t were the end.
        rest: value -> time since when it has been at rest, for a rule with a tolerance.
        errors: value -> [T+1] tensors of eps, paper's sign, if recorded.
        values: value -> [T+1] tensors of x, if recorded.
        update_errors: value -> eps at the vertex's update time; always kept. Under Z-IL ``eps_v(d_v) = -dL/dmu_v``.
        gradients: parameter -> gradient in PyTorch's sign, like `p.grad`; named by the model's qualified name,
            or by the vertex where it has none. A parameter that no error reaches has no entry.
        input_gradients: the same for inputs, by vertex name.
        final_values: value -> x at T, of everything that has an error node, and of free inputs. Completed and
            generated data are here.
        final_errors: value -> eps at T. Of a rule that learns at the end they are the `update_errors`.
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
    norms: dict[str, list[float]] = field(default_factory=dict)
    distance: list[float] = field(default_factory=list)
    rest: dict[str, int] = field(default_factory=dict)
    errors: dict[str, list[Tensor]] = field(default_factory=dict)
    values: dict[str, list[Tensor]] = field(default_factory=dict)
    update_errors: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    input_gradients: dict[str, Tensor] = field(default_factory=dict)
    final_values: dict[str, Tensor] = field(default_factory=dict)
    final_errors: dict[str, Tensor] = field(default_factory=dict)

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

    def depth_of(self, value: str) -> int:
        """Depth of a value's vertex; `value` is a name, ``"name.k"`` for output k.

        Raises:
            PCGraphError: no error reaches a vertex of that name.
        """
        depth = self.graph.depth
        name = value if value in depth else value.rpartition(".")[0]
        if name not in depth:
            raise PCGraphError(f"no error reaches {value!r}", hint="trace.depth has all that are reached")
        return depth[name]

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
        if self.rule.learns(self.depth_of(name), t, t == self.steps):
            return self.update_errors[name]
        raise PCGraphError(f"the error of {name!r} at step {t} was not kept", hint='simulate with record=("errors",)')

    def to_pandas(self) -> Any:
        """See `frames.to_pandas`: a row per value node and step."""
        return frames.to_pandas(self)

    def to_xarray(self) -> Any:
        """See `frames.to_xarray`: a Dataset over t."""
        return frames.to_xarray(self)

    def write(self, writer: Any, tag: str = "inference") -> None:
        """See `frames.write`: scalars and histograms for TensorBoard's `SummaryWriter`."""
        frames.write(self, writer, tag)

    def plot(self, kind: str = "energy", ax: Any = None) -> Any:
        """See `plots.plot`: ``"energy"`` over time, the errors' ``"wave"`` by level, or ``"distance"`` to backprop."""
        return plots.plot(self, kind, ax)

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


def qualified(parameter: Vertex) -> str:
    """Name of a parameter: the model's, or the vertex's where it has none."""
    return parameter.module_path or parameter.name


def label(ref: Ref) -> str:
    """Name of a value: its vertex, with the output behind it where that is not the first."""
    return f"{ref.vertex}.{ref.output}" if ref.output else ref.vertex
