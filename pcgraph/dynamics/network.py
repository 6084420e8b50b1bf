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
from .coordinates import Coordinates

Loss = Callable[[list[Tensor]], Tensor]
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
        loss: list of output tensors -> scalar.
        coordinates: which of x and eps is the state.

    Attributes:
        t: current time.
        x, mu, eps: value, prediction and error of every live value; eps has the paper's sign.
        hidden: values that are free to move. Outputs follow the loss; inputs and parameters are clamped.
        moving: error nodes that an inference step updates: `hidden`, and inputs that need a gradient.
        incoming: ``sum_u J_u^T eps_c(u)`` at time t; also of the parameters that learn at t. See `collect`.
        loss: the loss at the predictions of time t, a 0-dim tensor.
    """

    def __init__(self, graph: PCGraph, values: Mapping[str, Tensor], loss: Loss, coordinates: Coordinates) -> None:
        _check_values(graph, values)
        self.graph, self.t = graph, 0
        self._loss_of, self._coordinates = loss, coordinates
        self.x: dict[Ref, Tensor] = {}
        self.mu: dict[Ref, Tensor] = {}
        self.eps: dict[Ref, Tensor] = {}
        self.incoming: dict[Ref, Tensor] = {}
        self._held: dict[Ref, Any] = {}
        self._cells: list[Cell] = []
        self._first_prediction(values)
        self.hidden = tuple(ref for cell in self._cells if graph.depth[cell.name] for ref in cell.refs)
        self.moving = (*self.hidden, *(Ref(v.name) for v in graph.role(Role.INPUT) if graph.depth.get(v.name)))
        self.eps.update((ref, torch.zeros_like(self.x[ref])) for ref in self.moving)
        self.loss = self._face_loss()
        self.outputs = [self._prediction(ref) for ref in graph.outputs]

    # -- predictions -----------------------------------------------------------------------
    def _first_prediction(self, values: Mapping[str, Tensor]) -> None:
        """The model's forward pass: x = mu. Random numbers are consumed here, and only here."""
        graph, depth = self.graph, self.graph.depth
        leaves = {Ref(name): tensor.detach() for name, tensor in values.items()}
        self.x.update((ref, tensor) for ref, tensor in leaves.items() if ref.vertex in depth)
        self._held.update((ref, tensor) for ref, tensor in leaves.items() if ref.vertex not in depth)
        writes = any(vertex.operation is not None and vertex.operation.writes for vertex in graph.vertices.values())
        if writes:
            self._held = copy.deepcopy(self._held)  # all at once: what shares a storage still does
        for vertex in graph.vertices.values():
            if vertex.role in _LEAVES:
                continue
            if vertex.name in depth:
                cell = Cell(graph, vertex, self._held, copy_held=writes)
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
        hidden = set(self.hidden)
        for cell in self._cells:
            for ref, mu in zip(cell.refs, cell.evaluate(self.x, self.t), strict=True):
                if ref in hidden:
                    settle(ref, mu)
                self.mu[ref] = mu
        self.loss = self._face_loss()

    def _face_loss(self) -> Tensor:
        """``eps_out = -dL/dmu_out`` at the predictions of now, and ``x_out = mu_out + eps_out`` (squared loss: y)."""
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

        Args:
            learning: vertices whose parameter operands receive theirs too.
        """
        self.incoming = {ref: torch.zeros_like(self.x[ref]) for ref in self.moving}
        for cell in reversed(self._cells):
            errors = tuple(self.eps[ref] for ref in cell.refs)
            for ref, tensor in cell.pull(errors, cell.name in learning):
                before = self.incoming.get(ref)
                self.incoming[ref] = tensor if before is None else before + tensor

    def move(self, velocity: Mapping[Ref, Tensor]) -> None:
        """One step of time: hidden values take ``dx = velocity`` all at once, and everything is predicted again.

        A clamped input's error node moves; the input does not.
        """
        self.t += 1
        for ref in self.moving[len(self.hidden) :]:
            self.eps[ref] = self.eps[ref] + velocity[ref]
        self._coordinates.advance(self, velocity)
        self._predict(lambda ref, mu: self._coordinates.settle(self, ref, mu))

    def displace(self, errors: Mapping[Ref, Tensor]) -> None:
        """Put hidden values away from their predictions, in forward order: ``x = mu + errors``."""
        self._predict(lambda ref, mu: self._coordinates.place(self, ref, mu, errors.get(ref, torch.zeros_like(mu))))

    def energies(self) -> dict[str, Tensor]:
        """``1/2 ||eps_v||^2`` of every hidden vertex, by name."""
        result: dict[str, Tensor] = {}
        for ref in self.hidden:
            energy = 0.5 * self.eps[ref].abs().square().sum()
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
