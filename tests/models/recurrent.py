"""Recurrent networks: unrolled by hand, torch's own modules, cells, packed sequences, decoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .case import Made, Registry

MODELS = Registry()


class HandRNN(nn.Module):
    """A tanh network; `h0` is learned; the loss sits on the last step, or on every one."""

    def __init__(self, features: int, hidden: int, outputs: int, every_step: bool = False) -> None:
        super().__init__()
        self.w_x, self.w_h = nn.Linear(features, hidden), nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, outputs)
        self.h0 = nn.Parameter(torch.zeros(1, hidden))
        self.every_step = every_step

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        h: Tensor = self.h0
        outputs = []
        for step in x.unbind(1):
            h = torch.tanh(self.w_x(step) + self.w_h(h))
            if self.every_step:
                outputs.append(self.out(h))
        return outputs if self.every_step else self.out(h)


@MODELS.case()
def rnn_by_hand() -> Made:
    return HandRNN(4, 8, 3), (torch.randn(3, 50, 4),)


@MODELS.case()
def rnn_many_to_many() -> Made:
    return HandRNN(4, 8, 3, every_step=True), (torch.randn(3, 20, 4),)


class HandLSTM(nn.Module):
    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.w_x, self.w_h = nn.Linear(features, 4 * hidden), nn.Linear(hidden, 4 * hidden, bias=False)
        self.out = nn.Linear(hidden, outputs)
        self.h0, self.c0 = nn.Parameter(torch.zeros(1, hidden)), nn.Parameter(torch.zeros(1, hidden))

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.h0
        c: Tensor = self.c0
        for step in x.unbind(1):
            i, f, g, o = (self.w_x(step) + self.w_h(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.out(h)


@MODELS.case()
def lstm_by_hand() -> Made:
    return HandLSTM(4, 8, 3), (torch.randn(3, 50, 4),)


class Classifier(nn.Module):
    """A recurrent module of torch and a linear head on its last step."""

    def __init__(self, recurrent: nn.RNNBase, outputs: int = 3) -> None:
        super().__init__()
        self.recurrent = recurrent
        size = recurrent.proj_size or recurrent.hidden_size
        self.head = nn.Linear(size * (2 if recurrent.bidirectional else 1), outputs)

    def forward(self, x: Tensor) -> Tensor:
        sequence, _ = self.recurrent(x)
        return self.head(sequence[:, -1] if self.recurrent.batch_first else sequence[-1])


@MODELS.case()
def nn_rnn() -> Made:
    return Classifier(nn.RNN(4, 8, batch_first=True)), (torch.randn(3, 12, 4),)


@MODELS.case(rebatch=None)
def nn_rnn_relu_two_layers() -> Made:
    return Classifier(nn.RNN(4, 8, num_layers=2, nonlinearity="relu", dropout=0.2)), (torch.randn(9, 3, 4),)


@MODELS.case(native=True)
def nn_lstm() -> Made:
    return Classifier(nn.LSTM(4, 8, batch_first=True)), (torch.randn(3, 12, 4),)


@MODELS.case(native=True)
def nn_lstm_bidirectional() -> Made:
    lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True, bidirectional=True, dropout=0.3)
    return Classifier(lstm), (torch.randn(3, 7, 4),)


@MODELS.case()
def nn_lstm_projection() -> Made:
    return Classifier(nn.LSTM(4, 8, proj_size=5, batch_first=True)), (torch.randn(3, 8, 4),)


@MODELS.case()
def nn_gru() -> Made:
    return Classifier(nn.GRU(4, 8, batch_first=True)), (torch.randn(3, 12, 4),)


@MODELS.case(rebatch=None)
def nn_gru_without_bias() -> Made:
    return Classifier(nn.GRU(4, 6, num_layers=2, bias=False, bidirectional=True)), (torch.randn(7, 3, 4),)


class Packed(nn.Module):
    """Sequences of several lengths, packed; returns padded outputs and the last states."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.gru = nn.GRU(5, 6, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = pack_padded_sequence(self.embed(ids), lengths, batch_first=True, enforce_sorted=False)
        sequence, last = self.gru(packed)
        return pad_packed_sequence(sequence, batch_first=True)[0], last


@MODELS.case()
def packed_gru() -> Made:
    return Packed(), (torch.randint(0, 11, (4, 6)), torch.tensor([4, 6, 2, 5]))


class Cells(nn.Module):
    """One cell of each kind, stepped in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.lstm, self.gru = nn.RNNCell(4, 6), nn.LSTMCell(6, 5), nn.GRUCell(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        a, b, d = x.new_zeros(batch, 6), x.new_zeros(batch, 5), x.new_zeros(batch, 4)
        c = torch.zeros_like(b)
        for step in x.unbind(1):
            a = self.rnn(step, a)
            b, c = self.lstm(a, (b, c))
            d = self.gru(b, d)
        return d


@MODELS.case()
def recurrent_cells() -> Made:
    return Cells(), (torch.randn(3, 6, 4),)


class Preallocated(nn.Module):
    """Writes every step into a tensor made beforehand: ``out[:, t] = h``."""

    def __init__(self) -> None:
        super().__init__()
        self.w_x, self.w_h, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        out = x.new_zeros(batch, time, 6)
        h = x.new_zeros(batch, 6)
        for t in range(time):
            h = torch.tanh(self.w_x(x[:, t]) + self.w_h(h))
            out[:, t] = h
        return self.head(out)


@MODELS.case()
def preallocated_outputs() -> Made:
    return Preallocated(), (torch.randn(3, 10, 4),)


class EncoderDecoder(nn.Module):
    """An encoder's whole memory is attended to at every decoding step (many long edges)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.encoder, self.decoder = nn.GRUCell(6, 6), nn.GRUCell(12, 6)
        self.head = nn.Linear(12, 11)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        h = torch.zeros_like(self.embed(source[:, 0]))
        memory = []
        for t in range(source.shape[1]):
            h = self.encoder(self.embed(source[:, t]), h)
            memory.append(h)
        keys = torch.stack(memory, 1)
        logits = []
        for t in range(target.shape[1]):
            weights = torch.softmax((keys @ h.unsqueeze(-1)).squeeze(-1), -1)
            context = (weights.unsqueeze(1) @ keys).squeeze(1)
            h = self.decoder(torch.cat([self.embed(target[:, t]), context], -1), h)
            logits.append(self.head(torch.cat([h, context], -1)))
        return F.log_softmax(torch.stack(logits, 1), -1)


@MODELS.case()
def encoder_decoder_attention() -> Made:
    return EncoderDecoder(), (torch.randint(0, 11, (3, 6)), torch.randint(0, 11, (3, 5)))


class Euler(nn.Module):
    """A neural differential equation: one module at every step, a skip at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(15):
            x = x + 0.1 * self.field(x)
        return x


@MODELS.case()
def euler_steps() -> Made:
    return Euler(), (torch.randn(3, 4),)


class ConvGRU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates, self.candidate = nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 3, *x.shape[3:])
        for frame in x.unbind(1):
            reset, update = torch.sigmoid(self.gates(torch.cat([frame, h], 1))).chunk(2, 1)
            new = torch.tanh(self.candidate(torch.cat([frame, reset * h], 1)))
            h = (1 - update) * h + update * new
        return h


@MODELS.case()
def conv_gru() -> Made:
    return ConvGRU(), (torch.randn(2, 5, 2, 6, 6),)


class Truncated(nn.Module):
    """Truncated backpropagation through time: the state is detached every four steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 5), []
        for t, step in enumerate(x.unbind(1)):
            if t % 4 == 0:
                h = h.detach()
            h = self.cell(step, h)
            outputs.append(self.head(h))
        return torch.stack(outputs, dim=1)


@MODELS.case()
def truncated_rnn() -> Made:
    return Truncated(), (torch.randn(3, 10, 3),)


class Stateful(nn.Module):
    """The hidden state is a buffer carried from call to call, detached."""

    state: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.RNNCell(3, 5), nn.Linear(5, 2)
        self.register_buffer("state", torch.zeros(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.state
        for step in x.unbind(1):
            h = self.cell(step, h)
        self.state = h.detach()
        return self.head(h)


@MODELS.case(rebatch=None)
def stateful_rnn() -> Made:
    return Stateful(), (torch.randn(4, 6, 3),)
