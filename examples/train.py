"""Train a small network by Z-IL and look at its error nodes. Runs in seconds: python examples/train.py."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import pcgraph


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
    network = pcgraph.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
    accuracy = (network(x).argmax(1) == y).float().mean()
    print(f"loss {loss.item():.4f}, accuracy {accuracy:.2f}, T = {network.graph.steps} inference steps")

    with network.watch() as errors:  # the error nodes of one learning phase, in the paper's sign
        F.cross_entropy(network(x), y).backward()
    for name, error in errors.items():
        print(f"eps of {name:10s} t = {network.graph.depth[name]}  norm {error.norm():.2e}")


if __name__ == "__main__":
    main()
