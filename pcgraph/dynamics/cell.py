"""One vertex on its own: evaluate ``f_v``, and pull an error back through it. Nothing here sees a second vertex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..errors import GraphError, PCGraphError
from ..graph import PCGraph, Ref, Role, Vertex
from ..graph.leaves import hooks_off, leaf_for
from ..graph.text import line


class Cell:
    """A vertex with an error node, ready to be evaluated at any state of its parents.

    Evaluation disturbs nothing: operands that the operation writes are cloned, and a random
    operation draws the same numbers every time. Only `first` acts as the model would: it consumes the
    global generator and writes into the tensors that it is given.

    Args:
        graph: where the vertex lives.
        vertex: an operation or a relay that carries an error.
        held: the operands that do not move (state, non-differentiable values), as they are now.
        copy_held: keep copies of these, as other vertices may write them later.
        tensors: the parameters themselves, by vertex; custom functions may tell them from their data.

    Raises:
        GraphError: the operation writes a value that carries an error.
    """

    def __init__(
        self,
        graph: PCGraph,
        vertex: Vertex,
        held: Mapping[Ref, Tensor],
        copy_held: bool,
        tensors: Mapping[str, Tensor],
    ) -> None:
        self.name = vertex.name
        self.operation = vertex.operation
        self.multi = vertex.multi
        self.refs = tuple(Ref(vertex.name, k) for k, spec in enumerate(vertex.outputs) if spec and spec.requires_grad)
        self._text, self._where = line(graph, vertex), vertex.where()
        self._operands = vertex.operands
        self._carrying = tuple(k for k, ref in enumerate(vertex.operands) if graph.carries_error(ref))
        roles = [graph[ref.vertex].role for ref in vertex.operands]
        self._parameters = frozenset(k for k in self._carrying if roles[k] is Role.PARAMETER)
        repeated = {ref for ref in vertex.operands if vertex.operands.count(ref) > 1}
        own = {k: ref for k, ref in enumerate(vertex.operands) if k in self._parameters and ref not in repeated}
        self._tensors = {k: tensors[ref.vertex] for k, ref in own.items()}
        self._writes = frozenset(vertex.operation.writes if vertex.operation else ())
        if self._writes.intersection(self._carrying):
            raise GraphError(
                f"{self._text}: writes a value that carries an error",
                vertex=self._text,
                where=self._where,
                hint="lower in-place operations to their functional form",
            )
        self._held = {
            k: held[ref].clone() if copy_held else held[ref]
            for k, ref in enumerate(vertex.operands)
            if k not in self._carrying
        }
        self._copied = copy_held and bool(self._held)
        self._draw = _Draw(graph, vertex) if vertex.operation is not None and vertex.operation.random else None
        self._leaves: dict[int, Tensor] = {}
        self._results: tuple[Tensor, ...] = ()

    def first(self, values: Mapping[Ref, Tensor], held: Mapping[Ref, Tensor]) -> Mapping[Ref, Any]:
        """The model's own evaluation: like `evaluate`, but written operands change in place, and random numbers flow.

        Returns:
            Every output, those without an error included.
        """
        if self._draw is not None:
            self._draw.remember()
        outputs = self._run(values, {k: held[self._operands[k]] for k in self._held}, t=0)
        if self._copied:
            self.evaluate(values, t=0)  # or the local graph would hold state that later vertices write
        detached = (item.detach() if isinstance(item, Tensor) else item for item in outputs)
        return {Ref(self.name, k): item for k, item in enumerate(detached)}

    def evaluate(self, values: Mapping[Ref, Tensor], t: int) -> tuple[Tensor, ...]:
        """Predictions ``mu_v`` of every output in `refs`, from the parents' values at time t."""
        held = {k: value.clone() if k in self._writes else value for k, value in self._held.items()}
        with self._draw.again() if self._draw is not None else nullcontext():
            outputs = self._run(values, held, t)
        return tuple(outputs[ref.output].detach() for ref in self.refs)

    def _run(self, values: Mapping[Ref, Tensor], held: Mapping[int, Tensor], t: int) -> Sequence[Any]:
        if self.operation is None:  # a relay
            return (values[self._operands[0]],)
        # One leaf per operand, not per value: x * x has two Jacobians.
        self._leaves = {k: self._leaf(k, values[self._operands[k]]) for k in self._carrying}
        operands = [self._leaves[k] if k in self._leaves else held[k] for k in range(len(self._operands))]
        try:
            with torch.enable_grad():
                result = self.operation(*operands)
        except Exception as error:
            moved = "; its parents have moved away from the prediction" if t else ""
            raise PCGraphError(
                f"{self._text}: cannot be evaluated at step {t}{moved}: {error}",
                vertex=self._text,
                where=self._where,
                hint="check shapes and the domain of the operation; a smaller gamma moves values less",
            ) from error
        outputs: Sequence[Any] = result if self.multi else (result,)
        self._results = tuple(outputs[ref.output] for ref in self.refs)
        return outputs

    def _leaf(self, k: int, value: Tensor) -> Tensor:
        own = self._tensors.get(k)
        if own is not None and own.data_ptr() != value.data_ptr():
            own = None  # a rule that learns online has moved it
        if self.operation is None:
            return value.detach().requires_grad_()
        return leaf_for(self.operation, value if own is None else own)

    def pull(
        self, errors: tuple[Tensor, ...], values: bool, parameters: bool, keep: bool = False
    ) -> Iterator[tuple[Ref, Tensor]]:
        """``J_u^T eps_v`` for operands that carry an error, at the state of the last evaluation.

        Args:
            errors: ``eps_v``, one per output in `refs`.
            values: to operands that are value nodes.
            parameters: to those that are parameters.
            keep: it will be asked for again; otherwise what was saved is freed.

        Yields:
            What each operand's value receives, in operand order.
        """
        if self.operation is None:
            if parameters if self._parameters else values:
                yield self._operands[0], errors[0]
            return
        wanted = [k for k in self._carrying if (parameters if k in self._parameters else values)]
        pairs = [(r, e) for r, e in zip(self._results, errors, strict=True) if r.requires_grad]
        if wanted and pairs:
            leaves = [self._leaves[k] for k in wanted]
            with hooks_off(leaves, self._results):
                received = torch.autograd.grad(
                    [r for r, _ in pairs], leaves, [e for _, e in pairs], allow_unused=True, retain_graph=keep
                )
            for k, tensor in zip(wanted, received, strict=True):
                if tensor is not None:
                    yield self._operands[k], tensor
        if not keep:
            self._leaves, self._results = {}, ()


class _Draw:
    """The random numbers of one vertex: the generators' states before its first evaluation."""

    def __init__(self, graph: PCGraph, vertex: Vertex) -> None:
        specs = [graph.spec(ref) for ref in vertex.operands] + [spec for spec in vertex.outputs if spec is not None]
        cuda = {spec.device for spec in specs if spec.device.type == "cuda"}
        self._cuda = sorted(torch.cuda.current_device() if d.index is None else d.index for d in cuda)
        assert vertex.operation is not None
        items = [item for part in vertex.operation.parts for item in part.items]
        self._own = [item for item in items if isinstance(item, torch.Generator)]

    def remember(self) -> None:
        self._state = torch.get_rng_state()
        self._cuda_states = [torch.cuda.get_rng_state(device) for device in self._cuda]
        self._own_states = [generator.get_state() for generator in self._own]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the first evaluation's numbers once more; every generator ends up where it was."""
        now = [generator.get_state() for generator in self._own]
        with torch.random.fork_rng(devices=self._cuda):
            torch.set_rng_state(self._state)
            for device, state in zip(self._cuda, self._cuda_states, strict=True):
                torch.cuda.set_rng_state(state, device)
            for generator, state in zip(self._own, self._own_states, strict=True):
                generator.set_state(state)
            try:
                yield
            finally:
                for generator, state in zip(self._own, now, strict=True):
                    generator.set_state(state)
