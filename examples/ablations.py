"""What each condition of Z-IL is good for: leave one out, and learning is not backprop's any more.

Runs in seconds: python examples/ablations.py. Source: arXiv 2103.03725, appendix H.
"""

from __future__ import annotations

import torch
from torch import nn

import pcgraph


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.a(x))
        return self.c(h + torch.tanh(self.b(h)))


def main() -> None:
    torch.manual_seed(0)
    model = Residual().double()
    x, y = torch.randn(6, 4).double(), torch.randn(6, 2).double()
    (((y - model(x)) ** 2).sum() / 2).backward()
    truth = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    network = pcgraph.compile(model)
    print(network.prepare(x).graph, end="\n\n")
    print(network.schedule, end="\n\n")
    cases = {
        "Z-IL": (pcgraph.ZIL(), {}),
        "without levelling": (pcgraph.ZIL(), {"levelled": False}),
        "all parameters at T": (pcgraph.ZIL(update="end"), {}),
        "gamma = 0.5": (pcgraph.ZIL(gamma=0.5), {}),
        "errors start at 1e-3": (pcgraph.ZIL(), {"initial_error": 1e-3}),
        "inference learning": (pcgraph.IL(gamma=0.1, steps=64), {}),
    }
    for name, (rule, options) in cases.items():
        trace = network.simulate(x, target=y, rule=rule, options=options)
        gap = max(float((trace.gradients[n] - g).abs().max() / g.abs().max()) for n, g in truth.items())
        print(f"{name:22s} relative distance from backprop {gap:.1e}")


if __name__ == "__main__":
    main()
