"""No value moves before its time, however its tensor is laid out.

Unrolled recurrent modules read pieces of larger tensors. A piece and a copy of it have the same numbers, but kernels
may round them otherwise; under gamma = 1 the difference grows at every step, and soon it is all that is learned.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pcgraph


class Last(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells, self.head = kind(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(x)[0][:, -1])
        return out


class Pieces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(5, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.a(x).tanh().chunk(3, 1)
        out: Tensor = self.b(one.sigmoid() * two.exp().sin() + three.t().contiguous().t().cos().sigmoid())
        return out


@pytest.mark.parametrize("coordinates", ["x", "error"])
@pytest.mark.parametrize("made", [lambda: Last(nn.LSTM), lambda: Last(nn.GRU), Pieces], ids=["LSTM", "GRU", "pieces"])
def test_no_error_before_its_time(made: type[nn.Module], coordinates: str) -> None:
    model = made().double()
    x = torch.randn(4, 5 if isinstance(model, Pieces) else 3, *(() if isinstance(model, Pieces) else (4,))).double()
    plain = copy.deepcopy(model)
    (plain(x) ** 2).sum().backward()
    trace = pcgraph.compile(model).simulate(
        x, loss=lambda y: (y**2).sum(), rule=pcgraph.ZIL(), options={"record": ("errors",), "coordinates": coordinates}
    )
    depth = trace.graph.depth
    for name, errors in trace.errors.items():
        early = [t for t, error in enumerate(errors) if bool(error.any()) and t < depth[name.split(".")[0]]]
        assert not early, f"{name} of depth {depth[name.split('.')[0]]} has an error at {early}"
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(trace.gradients[name], parameter.grad, rtol=1e-12, atol=1e-13)
