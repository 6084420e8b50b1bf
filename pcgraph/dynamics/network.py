"""The state of the whole network at one time: every value, prediction and error node, explicit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import PCGraphError
from ..graph import PCGraph, Ref, Role, Vertex
from ..graph.text import line
from .cell import Cell
from .clamps import Clamps, Holds
from .coordinates import Coordinates
from .energy import Energy
from .vertex_energies import energies_of

Loss = Callable[[list[Tensor]], Tensor]
Update = Callable[[Mapping[str, Tensor]], None]
Nodes = dict[Ref, Tensor]
Snapshot = tuple[int, Nodes, Nodes, Nodes, Tensor]
Signal = Callable[[Ref, Mapping[Ref, Tensor]], Tensor]  # what a value's vertex sends down, from what it has received
_LEAVES = (Role.INPUT, Role.PARAMETER, Role.STATE)


class Network:
    """Value and error nodes of a graph, and the local operations that rules are made of.

    A vertex is *live* if an output's error can reach it (it has a depth). Live vertices are predicted anew at
    every step. All others are evaluated once, in the first prediction, and held: non-differentiable vertices
    (masks, indices: stop-gradients), and vertices whose value reaches no output. The compiled program holds them
    as well. Were they to move, a mask would change before its readers' update time, and a dead end that shares
    parents with a deep vertex would send it an error too early; both break exactness.

    Args:
        graph: every output that carries an error is read by the loss alone (see `with_readouts`).
        values: a tensor for each input, parameter and state, by vertex name; none is changed.
        loss: list of output tensors -> scalar. None: nothing is above the outputs, which are hidden values then.
        coordinates: which of x and eps is the state.
        clamps: value nodes that are held or freed.
        energies: vertex -> its energy; Gaussian with precision 1 where nothing is said.
        in_place: buffers that operations write are the given ones, not copies.
        update: takes gradients by parameter vertex and changes the parameters' tensors, for rules that learn online.

    Attributes:
        t: current time.
        x, mu, eps: value, prediction and error of every live value; eps has the paper's sign.
        hidden: values beside a prediction, free to move where they are not held. Outputs follow the loss; parameters
            are clamped, and inputs where they are not freed.
        moving: nodes that an inference step updates: `hidden`, and inputs that need a gradient (their error node, or
            the value if it is free).
        incoming: ``sum_u J_u^T (-de_c/dmu_c(u))`` at time t; also of the parameters that learn at t. See `collect`.
        loss: the loss at the predictions of time t, a 0-dim tensor; 0 without one.
        frozen: set by rules that keep predictions and Jacobians of the first time.
        onward: set by rules whose vertices pass on what they receive, instead of their own error.
    """

    def __init__(
        self,
        graph: PCGraph,
        values: Mapping[str, Tensor],
        loss: Loss | None,
        coordinates: Coordinates,
        *,
        clamps: Clamps | None = None,
        energies: Mapping[str, Energy] | None = None,
        in_place: bool = False,
        update: Update | None = None,
    ) -> None:
        _check_values(graph, values)
        self.graph, self.t, self.update = graph, 0, update
        self._loss_of, self._coordinates = loss, coordinates
        self.x: dict[Ref, Tensor] = {}
        self.mu: dict[Ref, Tensor] = {}
        self.eps: dict[Ref, Tensor] = {}
        self.incoming: dict[Ref, Tensor] = {}
        self.frozen = self.onward = False
        self._held: dict[Ref, Any] = {}
        self._cells: list[Cell] = []
        self._awake: set[Ref] = set()
        self._first_prediction(values, in_place)
        above = [cell for cell in self._cells if loss is None or graph.depth[cell.name]]
        self.hidden = tuple(ref for cell in above for ref in cell.refs)
        self._hidden = frozenset(self.hidden)
        self.inputs = tuple(Ref(v.name) for v in graph.role(Role.INPUT) if graph.depth.get(v.name))
        self.moving = (*self.hidden, *self.inputs)
        self.eps.update((ref, torch.zeros_like(self.x[ref])) for ref in self.moving)
        self.outputs = [self._prediction(ref) for ref in graph.outputs]
        faced = set() if loss is None else {ref for ref in graph.outputs if graph.carries_error(ref)}
        self.holds = Holds(graph, clamps or Clamps(), {r: self.x[r] for r in (*self.moving, *faced)}, faced)
        self._energies = energies_of(graph, energies or {}, self.hidden, self.holds)
        self.loss = self._face_loss()
        if self.holds.at:
            self.displace({})

    # -- predictions -----------------------------------------------------------------------
    def _first_prediction(self, values: Mapping[str, Tensor], in_place: bool) -> None:
        """The model's forward pass: x = mu. Random numbers are consumed here, and only here."""
        graph, depth = self.graph, self.graph.depth
        leaves = {Ref(name): tensor.detach() for name, tensor in values.items()}
        self.x.update((ref, tensor) for ref, tensor in leaves.items() if ref.vertex in depth)
        self._held.update((ref, tensor) for ref, tensor in leaves.items() if ref.vertex not in depth)
        writes = any(vertex.operation is not None and vertex.operation.writes for vertex in graph.vertices.values())
        if writes and not in_place:
            self._held = copy.deepcopy(self._held)  # all at once: what shares a storage still does
        for vertex in graph.vertices.values():
            if vertex.role in _LEAVES:
                continue
            if vertex.name in depth:
                cell = Cell(graph, vertex, self._held, copy_held=writes, tensors=values)
                outputs = cell.first(self.x, self._held)
                self._held.update((ref, item) for ref, item in outputs.items() if ref not in cell.refs)
                for ref in cell.refs:
                    self.x[ref] = self.mu[ref] = outputs[ref]
                self._cells.append(cell)
            else:
                self._hold(vertex)

    def _hold(self, vertex: Vertex) -> None:
        """Evaluate a vertex that no error reaches."""
        operands = [self._value(ref) for ref in vertex.operands]
        try:
            with torch.no_grad():
                result = vertex.operation(*operands) if vertex.operation is not None else operands[0]
        except Exception as error:
            text = line(self.graph, vertex)
            raise PCGraphError(f"{text}: cannot be evaluated: {error}", vertex=text, where=vertex.where()) from error
        for k, item in enumerate(result if vertex.multi else (result,)):
            self._held[Ref(vertex.name, k)] = item

    def _value(self, ref: Ref) -> Any:
        return self.x[ref] if ref in self.x else self._held[ref]

    def _prediction(self, ref: Ref) -> Any:
        return self.mu[ref] if ref in self.mu else self._value(ref)

    def _predict(self, settle: Callable[[Ref, Tensor], None]) -> None:
        """Predict every live vertex, in forward order, and let the loss look at the outputs."""
        for cell in self._cells:
            for ref, mu in zip(cell.refs, cell.evaluate(self.x, self.t), strict=True):
                if ref in self._hidden:
                    settle(ref, mu)
                    if ref in self.holds.at:
                        self._clamp(ref, mu)
                self.mu[ref] = mu
        self.loss = self._face_loss()

    def _clamp(self, ref: Ref, mu: Tensor) -> None:
        self.x[ref] = self.holds.held(ref, self.x[ref])
        error = self._energies[ref].error(self.x[ref], mu)
        where = self.holds.where.get(ref)
        self.eps[ref] = error if where is None else torch.where(where, error, self.eps[ref])

    def _face_loss(self) -> Tensor:
        """``eps_out = -dL/dmu_out`` at the predictions of now, and ``x_out = mu_out + eps_out`` (squared loss: y)."""
        if self._loss_of is None:
            return torch.zeros(())
        leaves: list[tuple[Ref, Tensor]] = []
        arguments = []
        for ref in self.graph.outputs:
            tensor = self._prediction(ref)
            if self.graph.carries_error(ref):
                tensor = tensor.detach().requires_grad_()
                leaves.append((ref, tensor))
            arguments.append(tensor)
        with torch.enable_grad():
            loss = self._loss_of(arguments)
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            raise PCGraphError(
                "the loss is not a scalar tensor that depends on an output with an error",
                hint="return one number computed from the outputs; at least one output must need a gradient",
            )
        slopes = torch.autograd.grad(loss, [leaf for _, leaf in leaves], allow_unused=True)
        # Zero first: an output may be returned twice, and a vertex at depth 0 may have outputs that are not returned.
        at_zero = [ref for cell in self._cells if not self.graph.depth[cell.name] for ref in cell.refs]
        self.eps.update((ref, torch.zeros_like(self._prediction(ref))) for ref in (*at_zero, *(r for r, _ in leaves)))
        for (ref, _), slope in zip(leaves, slopes, strict=True):
            if slope is not None:
                self.eps[ref] = self.eps[ref] - slope
        for ref in at_zero:
            self.x[ref] = self.mu[ref] + self.eps[ref]
        return loss.detach()

    # -- what rules use ----------------------------------------------------------------------
    def collect(self, learning: Collection[str]) -> None:
        """Fill `incoming` from the state of now: every live vertex sends ``J_u^T eps_v`` to each of its operands.

        With other energies than the Gaussian one it is ``J_u^T (-de_v/dmu_v)`` that is sent.

        Args:
            learning: vertices whose parameter operands receive theirs too.
        """
        self.incoming = self._sent(learning, self._onward if self.onward else self._message, self._message)

    def backprop(self) -> dict[str, Tensor]:
        """Minus what backprop's gradients are, by parameter vertex: every vertex passes on what it receives.

        By local steps, at the predictions of now. A yardstick for rules, and no part of any.
        """
        return self._lessons(self._onward)

    def lessons(self) -> dict[str, Tensor]:
        """Minus the gradients, by parameter vertex, if everything learned now; inference can go on afterwards."""
        return self._lessons(self._message)

    def _lessons(self, signal: Signal) -> dict[str, Tensor]:
        sent = self._sent({cell.name for cell in self._cells}, signal, signal, keep=True)
        parameters = [Ref(vertex.name) for vertex in self.graph.role(Role.PARAMETER)]
        return {ref.vertex: sent[ref] for ref in parameters if ref in sent}

    def _sent(self, learning: Collection[str], signal: Signal, lesson: Signal, keep: bool = False) -> dict[Ref, Tensor]:
        """Pull back through every live vertex, outputs first: `signal` to its values, `lesson` to its parameters."""
        incoming = {ref: torch.zeros_like(self.x[ref]) for ref in self.moving}
        keep = keep or self.frozen
        for cell in reversed(self._cells):
            learns, apart = cell.name in learning, signal != lesson
            pulls = cell.pull(
                tuple(signal(ref, incoming) for ref in cell.refs), True, learns and not apart, keep or apart
            )
            received = list(pulls)
            if apart:
                received += cell.pull(tuple(lesson(ref, incoming) for ref in cell.refs), False, learns, keep)
            for ref, tensor in received:
                before = incoming.get(ref)
                incoming[ref] = tensor if before is None else before + tensor
        return incoming

    def _message(self, ref: Ref, incoming: Mapping[Ref, Tensor]) -> Tensor:
        """What a vertex says of its own error: ``-de/dmu``; an output ``-dL/dmu``."""
        if ref not in self._hidden:
            return self.eps[ref]
        return self._energies[ref].message(self.x[ref], self.mu[ref], self.eps[ref])

    def _onward(self, ref: Ref, incoming: Mapping[Ref, Tensor]) -> Tensor:
        """``-dF/dmu`` with every error held and every value below it moving along: ``x = mu + eps``."""
        message = self._message(ref, incoming)
        if ref not in self._hidden or self.holds.whole(ref):
            return message
        energy = self._energies[ref]
        passed = incoming[ref] + (message - energy.pull(self.x[ref], self.mu[ref], self.eps[ref]))
        where = self.holds.where.get(ref)
        return passed if where is None else torch.where(where, message, passed)

    def forces(self) -> dict[Ref, Tensor]:
        """``-dF/dx_v = sum_u J_u^T eps_c(u) - eps_v`` (theory 1) of all moving nodes, 0 where they are held.

        The error node of a clamped input gets ``sum_u J_u^T eps_c(u) - eps_v`` as well. Call `collect` first.
        """
        result = {}
        for ref in self.moving:
            received = self.incoming[ref]
            if ref in self._hidden:
                pull = self._energies[ref].pull(self.x[ref], self.mu[ref], self.eps[ref])
                result[ref] = self.holds.still(ref, received - pull)
            elif ref in self.holds.free_inputs:
                result[ref] = self.holds.still(ref, received)
            else:
                result[ref] = received - self.eps[ref]
        return result

    def move(self, velocity: Mapping[Ref, Tensor]) -> None:
        """One step of time: hidden values take ``dx = velocity`` all at once, and everything is predicted again.

        A free input takes it too; of a clamped one the error node moves, and the input does not. Frozen predictions
        stay: errors take the velocity, and ``x = mu + eps``.
        """
        self._move_inputs(velocity)
        if self.frozen:
            for ref in self.hidden:
                self.eps[ref] = self.eps[ref] + velocity[ref]
                self.x[ref] = self.mu[ref] + self.eps[ref]
            return
        self._coordinates.advance(self, velocity)
        self._predict(lambda ref, mu: self._coordinates.settle(self, ref, mu))

    def shift(self, velocity: Mapping[Ref, Tensor]) -> None:
        """One step of time: hidden errors take ``deps = velocity``; values follow in forward order, x = mu + eps."""
        self._move_inputs(velocity)
        self.displace({ref: self.eps[ref] + velocity[ref] for ref in self.hidden})

    def _move_inputs(self, velocity: Mapping[Ref, Tensor]) -> None:
        self.t += 1
        for ref in self.inputs:
            nodes = self.x if ref in self.holds.free_inputs else self.eps
            if self.wakes(ref, velocity[ref]):
                nodes[ref] = nodes[ref] + velocity[ref]

    def wakes(self, ref: Ref, change: Tensor) -> bool:
        """Whether a value node has been moved by now, if it is now to move by `change`."""
        if ref not in self._awake and bool(change.any()):
            self._awake.add(ref)
        return ref in self._awake

    def displace(self, errors: Mapping[Ref, Tensor]) -> None:
        """Put hidden values away from their predictions, in forward order: ``x = mu + errors``."""
        self._predict(lambda ref, mu: self._coordinates.place(self, ref, mu, errors.get(ref, torch.zeros_like(mu))))

    def snapshot(self) -> Snapshot:
        """The state of now; to `restore`, and then to move from. Nothing is copied, as tensors are never written."""
        return self.t, dict(self.x), dict(self.mu), dict(self.eps), self.loss

    def restore(self, snapshot: Snapshot) -> None:
        """Back to that state. What can be collected is still what was predicted last."""
        self.t, x, mu, eps, self.loss = snapshot
        self.x, self.mu, self.eps = dict(x), dict(mu), dict(eps)

    def energies(self) -> dict[str, Tensor]:
        """The energy of every hidden vertex, by name; ``1/2 ||eps_v||^2`` where nothing else was said."""
        result: dict[str, Tensor] = {}
        for ref in self.hidden:
            energy = self._energies[ref].value(self.x[ref], self.mu[ref], self.eps[ref])
            result[ref.vertex] = result[ref.vertex] + energy if ref.vertex in result else energy
        return result


def _check_values(graph: PCGraph, values: Mapping[str, Tensor]) -> None:
    wanted = {vertex.name for vertex in graph.vertices.values() if vertex.role in _LEAVES}
    missing, extra = sorted(wanted - set(values)), sorted(set(values) - wanted)
    if missing or extra:
        raise PCGraphError(
            "values do not fit the graph:"
            + (f" missing {', '.join(missing)}" if missing else "")
            + (f" unknown {', '.join(extra)}" if extra else ""),
            hint="give one tensor for each input, parameter and state vertex, by vertex name",
        )
