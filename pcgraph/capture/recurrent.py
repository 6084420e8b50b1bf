"""Recurrent kernels as one step per time: what nn.RNN, nn.LSTM and nn.GRU call, written as torch-level operations.

A fused kernel is one opaque call in every capture. `UNROLLED` maps each of the four builtins to a function that
takes the same arguments, returns the same tuple and makes a handful of ordinary calls per time step, so that each
step becomes its own vertices with their own depths. The operations, their order and the strides of what the
transcendental functions read are those of ATen's CPU code (aten/src/ATen/native/RNN.cpp), and so are the results:

* RNN, GRU, packed sequences and projections: bitwise equal to the native call, outputs, gradients and random state.
* LSTM: bitwise equal to the same ATen code. For padded float32 (and, where the processor has it, bfloat16) without
  projection ATen hands the layer to oneDNN instead, whose fused kernel rounds differently: about 1e-7 in float32.
* Other devices than the CPU: the same network, rounded differently from their fused kernels.

Strides matter because ATen's ``sigmoid`` uses a vector routine for whole blocks of the innermost dimension and the C
library's ``exp`` for what is left, and the two differ in the last bit. ATen applies it in place to column blocks of the
gates, so row by row. Reading a column block out of place visits the elements in the same way: nothing here needs an
in-place operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
"""What a cell hands to its next step: ``(h,)``, or ``(h, c)`` for an LSTM; each [batch, size]."""


class Weights(NamedTuple):
    """Parameters of one direction of one layer; G is 1, 4 or 3 times the hidden size H (RNN, LSTM, GRU)."""

    w_ih: Tensor  # [G, input size]
    w_hh: Tensor  # [G, size of h]
    b_ih: Tensor | None  # [G]
    b_hh: Tensor | None  # [G]
    w_hr: Tensor | None  # [projection size, H], an LSTM with ``proj_size`` only


Cell = Callable[[Tensor, State, Weights], State]
"""One step: the step's input already multiplied by ``w_ih`` ([batch, G]), the state, the weights -> next state."""
Scan = Callable[[Cell, Tensor, State, Weights, bool], tuple[Tensor, State]]
"""One direction of one layer over the whole sequence: ``(cell, x, state, weights, reverse)`` -> (outputs, state)."""


def _simple_cell(activation: Callable[[Tensor], Tensor]) -> Cell:
    def cell(projected: Tensor, state: State, w: Weights) -> State:
        return (activation(F.linear(state[0], w.w_hh, w.b_hh) + projected),)

    return cell


def _lstm_cell(projected: Tensor, state: State, w: Weights) -> State:
    h, c = state
    gates = F.linear(h, w.w_hh, w.b_hh) + projected
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    c = f * c + i * g
    h = o * torch.tanh(c)
    return (h if w.w_hr is None else F.linear(h, w.w_hr)), c


def _gru_cell(projected: Tensor, state: State, w: Weights) -> State:
    (h,) = state
    gates = F.linear(h, w.w_hh, w.b_hh)
    size = gates.shape[1] // 3
    input_rz, input_n = projected.split((2 * size, size), 1)
    hidden_rz, hidden_n = gates.split((2 * size, size), 1)
    # r and z are summed side by side: sigmoid must read column blocks of a wider matrix, as ATen's does in place.
    r, z = (hidden_rz + input_rz).chunk(2, 1)
    r, z = torch.sigmoid(r), torch.sigmoid(z)
    n = torch.tanh(input_n + hidden_n * r)
    return ((h - n) * z + n,)


def _scan_padded(cell: Cell, x: Tensor, state: State, w: Weights, reverse: bool) -> tuple[Tensor, State]:
    """x: [time, batch, features] -> outputs [time, batch, size of h]."""
    steps: Sequence[Tensor] = F.linear(x, w.w_ih, w.b_ih).unbind(0)
    outputs = []
    for step in reversed(steps) if reverse else steps:
        state = cell(step, state, w)
        outputs.append(state[0])
    if reverse:
        outputs.reverse()
    return torch.stack(outputs), state


def _scan_packed(sizes: list[int]) -> Scan:
    """Scan over packed data, [sum of sizes, features] -> [sum of sizes, size of h]; sizes: batch size of each step."""

    def forward(cell: Cell, x: Tensor, state: State, w: Weights) -> tuple[Tensor, State]:
        outputs, finished, batch = [], [], sizes[0]
        for size, step in zip(sizes, F.linear(x, w.w_ih, w.b_ih).split(sizes), strict=True):
            if size < batch:  # the shortest sequences, which stand last, are over: keep their states
                finished.append(_rows(state, size, batch))
                state, batch = _rows(state, 0, size), size
            state = cell(step, state, w)
            outputs.append(state[0])
        finished.append(state)
        return torch.cat(outputs), _join(finished[::-1])

    def backward(cell: Cell, x: Tensor, start: State, w: Weights) -> tuple[Tensor, State]:
        outputs, batch = [], sizes[-1]
        state = _rows(start, 0, batch)
        for size, step in zip(reversed(sizes), reversed(F.linear(x, w.w_ih, w.b_ih).split(sizes)), strict=True):
            if size > batch:  # seen from the end, shorter sequences join later
                state, batch = _join([state, _rows(start, batch, size)]), size
            state = cell(step, state, w)
            outputs.append(state[0])
        return torch.cat(outputs[::-1]), state

    return lambda cell, x, state, w, reverse: (backward if reverse else forward)(cell, x, state, w)


def _rows(state: State, start: int, stop: int) -> State:
    return tuple(part.narrow(0, start, stop - start) for part in state)


def _join(states: Sequence[State]) -> State:
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def _weights(params: Sequence[Tensor], has_biases: bool, projected: bool) -> list[Weights]:
    """The builtin's flat list, cut into cells: w_ih, w_hh, then b_ih, b_hh and w_hr where there are any."""
    width = 2 + 2 * has_biases + projected
    cells = []
    for at in range(0, len(params), width):
        w_ih, w_hh, *rest = params[at : at + width]
        b_ih, b_hh = rest[:2] if has_biases else (None, None)
        cells.append(Weights(w_ih, w_hh, b_ih, b_hh, rest[-1] if projected else None))
    return cells


def _run(
    cell: Cell, scan: Scan, x: Tensor, hx: Sequence[Tensor], weights: list[Weights], directions: int, dropout: float
) -> tuple[Tensor, ...]:
    """Layers and directions, in ATen's order -> (output, h_n) or (output, h_n, c_n)."""
    starts = list(zip(*(part.unbind(0) for part in hx), strict=True))
    ends: list[State] = []
    for first in range(0, len(weights), directions):
        if first and dropout:
            x = F.dropout(x, dropout, True)
        outputs = []
        for k in range(first, first + directions):
            output, end = scan(cell, x, starts[k], weights[k], k > first)
            outputs.append(output)
            ends.append(end)
        x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
    return (x, *(torch.stack(parts) for parts in zip(*ends, strict=True)))


def _unrolled(cell: Cell, lstm: bool = False) -> Callable[..., Any]:
    """The replacement of one builtin, both overloads. Reads the sizes of a packed sequence as Python numbers."""

    def unroll(
        x: Tensor,
        sizes: list[int] | None,
        hx: Tensor | Sequence[Tensor],
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> Any:
        states = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        directions = 2 if bidirectional else 1
        # Fused kernels of other devices draw dropout from a random stream of their own, which cannot be imitated; a
        # call that does not fit together is ATen's to refuse, in its own words.
        if x.device.type != "cpu" and dropout and train and num_layers > 1:
            return NotImplemented
        if x.dim() != (3 if sizes is None else 2) or 0 in x.shape or sizes == []:
            return NotImplemented
        batch = sizes[0] if sizes else x.shape[0 if batch_first else 1]
        if (
            len(states) != 1 + lstm
            or any(part.dim() != 3 or part.shape[:2] != (num_layers * directions, batch) for part in states)
            or (sizes is not None and (sum(sizes) != x.shape[0] or sizes != sorted(sizes, reverse=True)))
        ):
            return NotImplemented
        projected = lstm and states[0].shape[2] != states[1].shape[2]
        if len(params) != num_layers * directions * (2 + 2 * has_biases + projected):
            return NotImplemented
        weights = _weights(params, has_biases, projected)
        scan = _scan_padded if sizes is None else _scan_packed(sizes)
        x = x.transpose(0, 1) if batch_first else x
        result = _run(cell, scan, x, states, weights, directions, dropout if train else 0.0)
        return (result[0].transpose(0, 1), *result[1:]) if batch_first else result

    def padded(input: Tensor, hx: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        return unroll(input, None, hx, params, *args, **kwargs)

    def packed(data: Tensor, batch_sizes: Tensor, hx: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        return unroll(data, batch_sizes.tolist(), hx, params, *args, **kwargs)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        # Both overloads take nine arguments: the last is `batch_first`, or the fourth is the list of weights.
        by_position = len(args) == 9 and not isinstance(args[3], list | tuple)
        return (padded if by_position or "batch_first" in kwargs else packed)(*args, **kwargs)

    return replacement


UNROLLED: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.rnn_tanh: _unrolled(_simple_cell(torch.tanh)),
    torch.rnn_relu: _unrolled(_simple_cell(torch.relu)),
    torch.lstm: _unrolled(_lstm_cell, lstm=True),
    torch.gru: _unrolled(_gru_cell),
}
"""Builtin -> replacement with its signature and return structure. A replacement returns NotImplemented, before it has
made any call that computes, where it cannot stand in for the builtin: dropout between layers on another device than the
CPU, empty data, or arguments that do not fit together (the builtin then raises its own error)."""
