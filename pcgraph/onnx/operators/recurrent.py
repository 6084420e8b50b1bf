"""LSTM, GRU and RNN with all that ONNX lets them have: activations, clips, peepholes, lengths, directions, layouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .table import operator

Activation = Callable[[Tensor], Tensor]
State = tuple[Tensor, Tensor | None]  # hidden [B, H], and of an LSTM the cell [B, H]

_PLAIN: dict[str, Activation] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "tanh": torch.tanh,
}
_DEFAULT = {"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class Options:
    """Attributes that the three operators share, by their ONNX names."""

    hidden_size: int | None = None
    direction: str = "forward"
    activations: Sequence[str] | None = None
    activation_alpha: Sequence[float] | None = None
    activation_beta: Sequence[float] | None = None
    clip: float | None = None
    layout: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def functions(self, kind: str) -> list[list[Activation]]:
        """Activations of every direction. Coefficients are handed out in order, to those that take some."""
        default = _DEFAULT[kind]
        names = [name.lower() for name in self.activations or default * self.directions]
        alphas, betas = iter(self.activation_alpha or ()), iter(self.activation_beta or ())
        found = [_activation(name, alphas, betas) for name in names]
        return [found[i : i + len(default)] for i in range(0, len(found), len(default))]


def _activation(name: str, alphas: object, betas: object) -> Activation:
    def take(values: object, default: float) -> float:
        return next(values, default)  # type: ignore[call-overload]

    if name in _PLAIN:
        return _PLAIN[name]
    if name == "affine":
        alpha, beta = take(alphas, 1.0), take(betas, 0.0)
        return lambda x: alpha * x + beta
    if name == "leakyrelu":
        alpha = take(alphas, 0.01)
        return lambda x: F.leaky_relu(x, alpha)
    if name == "thresholdedrelu":
        alpha = take(alphas, 1.0)
        return lambda x: F.threshold(x, alpha, 0.0)
    if name == "scaledtanh":
        alpha, beta = take(alphas, 1.0), take(betas, 1.0)
        return lambda x: alpha * torch.tanh(beta * x)
    if name == "hardsigmoid":
        alpha, beta = take(alphas, 0.2), take(betas, 0.5)
        return lambda x: torch.clamp(alpha * x + beta, 0, 1)
    if name == "elu":
        alpha = take(alphas, 1.0)
        return lambda x: F.elu(x, alpha)
    raise ValueError(f"unknown activation {name!r}")


def _clipped(x: Tensor, clip: float | None) -> Tensor:
    return x if not clip else x.clamp(-clip, clip)


def _run(
    kind: str,
    options: Options,
    cell: Callable[[int, Tensor, State, list[Activation]], State],
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    initial: tuple[Tensor | None, Tensor | None],
    outputs: int,
) -> Tensor | tuple[Tensor, ...]:
    """Both directions of a recurrent operator over [T, B, I].

    The cell goes from direction, the gates' shares of the input [B, G H], state and activations to the next state.
    """
    hidden = options.hidden_size or w.size(1) // _GATES[kind]
    if options.layout:
        x = x.transpose(0, 1)
        initial = tuple(None if v is None else v.transpose(0, 1) for v in initial)  # type: ignore[assignment]
    sequences, finals = [], []
    for d, functions in enumerate(options.functions(kind)):
        own = None if bias is None else bias[d, : _GATES[kind] * hidden]
        shares = F.linear(x, w[d], own)
        state = _initial(kind, initial, d, shares[0][:, :hidden])
        backwards = options.direction == "reverse" or d == 1
        rows, state = _directed(lambda *a, d=d: cell(d, *a), shares, state, functions, lengths, backwards)
        sequences.append(torch.stack(rows))
        finals.append(state)
    sequence = torch.stack(sequences, 1)  # [T, D, B, H]
    last = [
        torch.stack([part for part in parts if part is not None])
        for parts in zip(*finals, strict=True)
        if parts[0] is not None
    ]
    if options.layout:
        sequence, last = sequence.permute(2, 0, 1, 3), [part.transpose(0, 1) for part in last]
    return sequence if outputs == 1 else (sequence, *last)[:outputs]


def _initial(kind: str, initial: tuple[Tensor | None, Tensor | None], d: int, like: Tensor) -> State:
    hidden = torch.zeros_like(like) if initial[0] is None else initial[0][d]
    if kind != "LSTM":
        return hidden, None
    return hidden, torch.zeros_like(like) if initial[1] is None else initial[1][d]


def _directed(
    cell: Callable[[Tensor, State, list[Activation]], State],
    shares: Tensor,
    state: State,
    functions: list[Activation],
    lengths: Tensor | None,
    backwards: bool,
) -> tuple[list[Tensor], State]:
    """Hidden states of one direction, in the order of time, and the last state."""
    steps = shares.size(0)
    rows: list[Tensor] = [shares] * steps
    for t in reversed(range(steps)) if backwards else range(steps):
        new = cell(shares[t], state, functions)
        rows[t] = new[0]
        if lengths is not None:
            inside = (lengths > t).unsqueeze(-1)
            rows[t] = torch.where(inside, new[0], torch.zeros_like(new[0]))
            new = (
                torch.where(inside, new[0], state[0]),
                None if new[1] is None or state[1] is None else torch.where(inside, new[1], state[1]),
            )
        state = new
    return rows, state


@operator("RNN", settings=(4,), counted=True)
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    hidden_size: int | None = None,
    direction: str = "forward",
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    layout: int = 0,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Elman network: ``h = f(W x + R h + b)``."""
    options = Options(hidden_size, direction, activations, activation_alpha, activation_beta, clip, layout)
    half = None if bias is None else bias.size(1) // 2

    def cell(d: int, share: Tensor, state: State, f: list[Activation]) -> State:
        own = None if bias is None else bias[d, half:]
        return f[0](_clipped(share + F.linear(state[0], r[d], own), clip)), None

    return _run("RNN", options, cell, x, w, bias, lengths, (initial_h, None), outputs)


@operator("GRU", settings=(4,), counted=True)
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    hidden_size: int | None = None,
    direction: str = "forward",
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Gated recurrent units, gates in the order z, r, h."""
    options = Options(hidden_size, direction, activations, activation_alpha, activation_beta, clip, layout)
    half = None if bias is None else bias.size(1) // 2

    def cell(d: int, share: Tensor, state: State, f: list[Activation]) -> State:
        h = state[0]
        xz, xr, xh = share.chunk(3, -1)
        rz, rr, rh = r[d].chunk(3)
        bz, br, bh = (None, None, None) if bias is None else bias[d, half:].chunk(3)
        z = f[0](_clipped(xz + F.linear(h, rz, bz), clip))
        reset = f[0](_clipped(xr + F.linear(h, rr, br), clip))
        inner = reset * F.linear(h, rh, bh) if linear_before_reset else F.linear(reset * h, rh, bh)
        return (1 - z) * f[1](_clipped(xh + inner, clip)) + z * h, None

    return _run("GRU", options, cell, x, w, bias, lengths, (initial_h, None), outputs)


@operator("LSTM", settings=(4,), counted=True)
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peephole: Tensor | None = None,
    hidden_size: int | None = None,
    direction: str = "forward",
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    layout: int = 0,
    input_forget: int = 0,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Long short-term memory, gates in the order i, o, f, c."""
    options = Options(hidden_size, direction, activations, activation_alpha, activation_beta, clip, layout)
    half = None if bias is None else bias.size(1) // 2

    def cell(d: int, share: Tensor, state: State, f: list[Activation]) -> State:
        h, c = state
        assert c is not None
        own = None if bias is None else bias[d, half:]
        i, o, forget, g = (share + F.linear(h, r[d], own)).chunk(4, -1)
        pi, po, pf = (None, None, None) if peephole is None else peephole[d].chunk(3)
        i = f[0](_clipped(_peeped(i, pi, c), clip))
        forget = 1 - i if input_forget else f[0](_clipped(_peeped(forget, pf, c), clip))
        c = forget * c + i * f[1](_clipped(g, clip))
        return f[0](_clipped(_peeped(o, po, c), clip)) * f[2](c), c

    return _run("LSTM", options, cell, x, w, bias, lengths, (initial_h, initial_c), outputs)


def _peeped(gate: Tensor, weight: Tensor | None, c: Tensor) -> Tensor:
    return gate if weight is None else gate + weight * c
