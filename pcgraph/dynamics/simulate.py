"""The semantic reference: predictive coding with every value and error node explicit, all updated at every step."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from ..errors import PCGraphError
from ..graph import PCGraph, Ref
from .clamps import Clamps
from .coordinates import coordinates_named
from .energy import Energy, Function, as_energy
from .network import Loss, Network, Update
from .notes import Notes
from .progress import Progress, bar
from .readout import simulated
from .rule import Rule, check_rule
from .trace import Trace, label


def simulate(
    graph: PCGraph,
    values: Mapping[str, Tensor],
    *,
    loss: Loss | None,
    rule: Rule,
    coordinates: str = "x",
    levelled: bool = True,
    clamp: Mapping[str, Tensor] | None = None,
    free: Collection[str] = (),
    mask: Mapping[str, Tensor] | None = None,
    energies: Mapping[str, Energy | Function | float | Tensor] | None = None,
    initial_error: float | Mapping[str, float | Tensor] | None = None,
    seed: int = 0,
    record: Collection[str] = (),
    only: str | Collection[str] = "*",
    progress: bool | Progress = False,
    in_place: bool = False,
    update: Update | None = None,
) -> Trace:
    """Run inference on the levelled graph and let the parameters learn when the rule says so.

    At time t every vertex predicts ``mu_v = f_v(parents)``; hidden vertices have ``eps_v = x_v - mu_v``, outputs
    ``-dL/dmu``; then all hidden values move at once. Inputs are clamped; one that needs a gradient collects an error
    in the same way. Non-differentiable vertices are evaluated once, in the first prediction, and then held: they
    are stop-gradients, the compiled program holds them as well, and a moving mask would break exactness. Random
    vertices use the draw of the first prediction at every step; the global generator is consumed once, as by the
    model. No tensor in `values` is changed: buffers that operations write are written on copies.

    Args:
        graph: as lowered; relays are added here.
        values: a tensor for each input, parameter and state, by vertex name. Use float64 for a reference.
        loss: list of the graph's output tensors -> scalar tensor. None: outputs are values like others, that `clamp`
            may hold and that are free otherwise.
        rule: `ZIL`, `IL`, ...
        coordinates: ``"x"``: values are the state, ``eps = x - mu``; ``"error"``: errors are, ``x = mu + eps``.
        levelled: False leaves the relays out (an ablation: errors arrive too early at the end of long edges).
        clamp: see `Clamps`.
        free: see `Clamps`.
        mask: see `Clamps`.
        energies: vertex name or pattern -> its energy, a function ``(x, mu) -> number``, or the precision of a Gaussian
            (see `pcgraph.dynamics.energy`).
        initial_error: every hidden error starts at this size with random signs (an ablation), or by value name.
        seed: of those signs.
        record: what to keep over time, of ``"energies"`` (per vertex), ``"norms"`` (of errors), ``"errors"``,
            ``"values"``, ``"distance"`` (of what would be learned now from backprop's gradient). Totals, gradients and
            the errors at the update times are always kept.
        only: pattern(s) of vertex names that ``"errors"`` and ``"values"`` are kept of.
        progress: True for a bar on the terminal; or a function, called with (t, T) at each step.
        in_place: let operations write the given buffers, as the model does.
        update: see `Network`.

    Raises:
        PCGraphError: values are missing, nothing carries an error, the loss is no scalar, a clamp or an energy does not
            fit, or a vertex cannot be evaluated where its parents have moved to.

    Source: arXiv 2103.03725, sections 3.1 to 3.3; levelled graphs, Salvatori et al., AAAI 2022.
    """
    check_rule(rule)
    graph = simulated(graph, levelled)
    if not graph.depth:
        raise PCGraphError("no output carries an error", hint="an output must need a gradient for inference to start")
    network = Network(
        graph,
        values,
        loss,
        coordinates_named(coordinates),
        clamps=Clamps(clamp or {}, free, mask or {}),
        energies={name: as_energy(energy) for name, energy in (energies or {}).items()},
        in_place=in_place,
        update=update,
    )
    trace = Trace(graph, rule, coordinates, tuple(record), network.outputs)
    notes = Notes(trace, network, (only,) if isinstance(only, str) else tuple(only))
    if initial_error is not None:
        network.displace(_initial_errors(network, initial_error, seed))
    state, horizon = rule.init(network), rule.horizon(graph)
    last = False
    advance = bar() if progress is True else progress
    while not last:
        last = rule.done(network, state)
        learning = {name for name, depth in graph.depth.items() if rule.learns(depth, network.t, last)}
        notes.look(network)
        network.collect(learning)
        notes.take(network, learning)
        if advance:
            advance(network.t, horizon)
        if not last:
            rule.step(network, state)
    notes.end(network, state)
    rule.ended(trace)
    return trace


def _initial_errors(network: Network, wanted: float | Mapping[str, float | Tensor], seed: int) -> dict[Ref, Tensor]:
    if isinstance(wanted, Mapping):
        names = {label(ref): ref for ref in network.hidden}
        unknown = sorted(set(wanted) - set(names))
        if unknown:
            raise PCGraphError(f"initial_error: {unknown} are no hidden values", hint="name hidden vertices")
        return {names[n]: torch.zeros_like(network.x[names[n]]) + error for n, error in wanted.items()}
    generator = torch.Generator().manual_seed(seed)
    signs = {ref: torch.randint(0, 2, network.x[ref].shape, generator=generator) * 2 - 1 for ref in network.hidden}
    return {ref: wanted * sign.to(network.x[ref]) for ref, sign in signs.items()}
