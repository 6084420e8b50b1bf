"""Predictive coding written out in NumPy, float64: a reference that shares nothing with pcgraph.

A network is a list of steps ``(operation, arguments)``: an argument is the number of an earlier node (node 0 .. are the
inputs) or, as a string, the name of a weight. Derivatives are written by hand, edges are levelled by hand, every rule
is a loop of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Node = tuple[str, tuple[int | str, ...]]


@dataclass
class Naive:
    """A levelled network; nodes are numbered anew, relays included.

    Attributes:
        nodes: operation and arguments, in forward order; inputs are ``("input", ())``.
        origin: node -> its number in the steps that were given, or None for relays.
        output: number of the output node; the target is clamped to it.
    """

    weights: dict[str, Array]
    inputs: list[Array]
    target: Array
    nodes: list[Node] = field(default_factory=list)
    origin: list[int | None] = field(default_factory=list)
    output: int = 0
    precision: dict[int, float] = field(default_factory=dict)  # by number in the steps that were given
    clamped: dict[int, Array] = field(default_factory=dict)

    def build(self, steps: list[Node], levelled: bool = True) -> Naive:
        """Leave out what the output does not read, and put relays on long edges; edges of one node share theirs."""
        inputs = len(self.inputs)
        given: list[Node] = [("input", ())] * inputs + steps
        last = len(given) - 1
        depth = {last: 0}
        for n in range(last, -1, -1):
            if n in depth:
                for a in given[n][1]:
                    if isinstance(a, int):
                        depth[a] = max(depth.get(a, 0), depth[n] + 1)
        number: dict[tuple[int, int], int] = {}  # node given, level -> node here
        for n, (operation, arguments) in enumerate(given):
            if n not in depth and n >= inputs:
                continue
            here: list[int | str] = []
            for a in arguments:
                if isinstance(a, str):
                    here.append(a)
                    continue
                wanted = depth[n] + 1
                if a >= inputs and levelled:
                    for level in range(depth[a] - 1, wanted - 1, -1):
                        if (a, level) not in number:
                            number[a, level] = self._add("relay", (number[a, level + 1],), None)
                    here.append(number[a, wanted])
                else:
                    here.append(number[a, depth[a]])
            number[n, depth.get(n, 0)] = self._add(operation, tuple(here), n)
        self.output = len(self.nodes) - 1
        return self

    def _add(self, operation: str, arguments: tuple[int | str, ...], origin: int | None) -> int:
        self.nodes.append((operation, arguments))
        self.origin.append(origin)
        return len(self.nodes) - 1

    # -- one vertex ------------------------------------------------------------------------------
    def predict(self, n: int, x: dict[int, Array]) -> Array:
        operation, arguments = self.nodes[n]
        a = [self.weights[k] if isinstance(k, str) else x[k] for k in arguments]
        if operation == "input":
            return x[n]
        if operation == "linear":
            return a[0] @ a[1].T + a[2]
        if operation == "add":
            return a[0] + a[1]
        if operation == "mul":
            return a[0] * a[1]
        return {"tanh": np.tanh, "sin": np.sin, "relay": lambda v: v}[operation](a[0])

    def pull(self, n: int, x: dict[int, Array], e: Array) -> list[Array]:
        """``J_k^T e`` for every argument."""
        operation, arguments = self.nodes[n]
        a = [self.weights[k] if isinstance(k, str) else x[k] for k in arguments]
        if operation == "linear":
            return [e @ a[1], e.T @ a[0], e.sum(0)]
        if operation == "add":
            return [e, e]
        if operation == "mul":
            return [e * a[1], e * a[0]]
        if operation == "tanh":
            return [e * (1 - np.tanh(a[0]) ** 2)]
        return [e * np.cos(a[0]) if operation == "sin" else e]

    # -- the whole -------------------------------------------------------------------------------
    @property
    def hidden(self) -> list[int]:
        return [n for n, (operation, _) in enumerate(self.nodes) if operation != "input" and n != self.output]

    def weight(self, n: int) -> float:
        """Precision of a node."""
        origin = self.origin[n]
        return 1.0 if origin is None else self.precision.get(origin, 1.0)

    def forward(self, errors: dict[int, Array] | None = None) -> dict[int, Array]:
        """Values with these errors on top of their predictions; clamped ones where they are clamped."""
        x: dict[int, Array] = dict(enumerate(self.inputs))
        for n in range(len(self.nodes)):
            if self.nodes[n][0] != "input":
                x[n] = self.predict(n, x) + (0 if errors is None or n not in errors else errors[n])
                origin = self.origin[n]
                if origin in self.clamped:
                    assert origin is not None
                    x[n] = self.clamped[origin]
        return x

    def errors(self, x: dict[int, Array]) -> dict[int, Array]:
        found = {n: x[n] - self.predict(n, x) for n in self.hidden}
        found[self.output] = self.target - self.predict(self.output, x)
        return found

    def received(self, x: dict[int, Array], eps: dict[int, Array]) -> tuple[dict[int, Array], dict[str, Array]]:
        """What every node and every weight gets from the weighted errors of its uses."""
        nodes: dict[int, Array] = {n: np.zeros_like(x[n]) for n in range(len(self.nodes))}
        weights = {name: np.zeros_like(w) for name, w in self.weights.items()}
        for n, e in eps.items():
            for k, sent in zip(self.nodes[n][1], self.pull(n, x, self.weight(n) * e), strict=True):
                if isinstance(k, str):
                    weights[k] = weights[k] + sent
                else:
                    nodes[k] = nodes[k] + sent
        return nodes, weights

    def moves(self, n: int) -> bool:
        return self.origin[n] not in self.clamped

    # -- rules: each returns values, errors, and gradients in PyTorch's sign ------------------------
    def il(self, gamma: float, steps: int) -> tuple[dict[int, Array], dict[int, Array], dict[str, Array]]:
        x = self.forward()
        for _ in range(steps):
            eps = self.errors(x)
            nodes, _ = self.received(x, eps)
            step = {n: gamma * (nodes[n] - self.weight(n) * eps[n]) for n in self.hidden if self.moves(n)}
            x = {n: x[n] + step[n] if n in step else x[n] for n in x}
        eps = self.errors(x)
        return x, eps, {k: -g for k, g in self.received(x, eps)[1].items()}

    def fixed(self, gamma: float, steps: int) -> tuple[dict[int, Array], dict[int, Array], dict[str, Array]]:
        x = self.forward()
        eps = self.errors(x)
        for _ in range(steps):
            nodes, _ = self.received(x, eps)
            eps = {n: e if n == self.output else e + gamma * (nodes[n] - e) for n, e in eps.items()}
        return {n: x[n] + eps.get(n, 0) for n in x}, eps, {k: -g for k, g in self.received(x, eps)[1].items()}

    def incremental(
        self, gamma: float, steps: int, rate: float
    ) -> tuple[dict[int, Array], dict[int, Array], dict[str, Array]]:
        x, total = self.forward(), {name: np.zeros_like(w) for name, w in self.weights.items()}
        for _ in range(steps):
            eps = self.errors(x)
            nodes, weights = self.received(x, eps)
            x = {n: x[n] + gamma * (nodes[n] - eps[n]) if n in self.hidden else x[n] for n in x}
            self.weights = {k: w + rate * weights[k] for k, w in self.weights.items()}
            total = {k: g - weights[k] for k, g in total.items()}
        return x, self.errors(x), total

    def error_coordinates(
        self, gamma: float, steps: int
    ) -> tuple[dict[int, Array], dict[int, Array], dict[str, Array]]:
        """Plain gradient descent on ``F(eps)``; the derivative by a wave from the output down."""
        e = {n: np.zeros_like(v) for n, v in self.forward().items() if n in self.hidden}
        for _ in range(steps):
            x = self.forward(e)
            wave: dict[int, Array] = {n: np.zeros_like(x[n]) for n in x}
            wave[self.output] = self.target - self.predict(self.output, x)
            for n in range(len(self.nodes) - 1, -1, -1):
                if self.nodes[n][0] != "input":
                    for k, sent in zip(self.nodes[n][1], self.pull(n, x, wave[n]), strict=True):
                        if isinstance(k, int):
                            wave[k] = wave[k] + sent
            e = {n: error + gamma * (wave[n] - error) for n, error in e.items()}
        x = self.forward(e)
        eps = {**e, self.output: self.target - self.predict(self.output, x)}
        return x, eps, {k: -g for k, g in self.received(x, eps)[1].items()}

    def zil(self) -> dict[str, Array]:
        """T = depth steps at gamma = 1; a node's weights learn when the wave first reaches it."""
        depth = {self.output: 0}
        for n in range(len(self.nodes) - 1, -1, -1):
            for k in self.nodes[n][1]:
                if isinstance(k, int):
                    depth[k] = max(depth.get(k, 0), depth[n] + 1)
        x, total = self.forward(), {name: np.zeros_like(w) for name, w in self.weights.items()}
        for t in range(max(depth.values()) + 1):
            eps = self.errors(x)
            nodes, _ = self.received(x, eps)
            now = {n: eps[n] for n in eps if depth[n] == t}
            total = {k: g - self.received(x, now)[1][k] for k, g in total.items()}
            x = {n: x[n] + (nodes[n] - eps[n]) if n in self.hidden else x[n] for n in x}
        return total
