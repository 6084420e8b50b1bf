"""Plain gradient descent inside of a learning program: parameters learn where their gradients are made.

``p -= lr * gradient`` follows all other lines, so that nothing reads a parameter that has changed already. Where the
gradient is one product, the product is added to the parameter at once, and the gradient is nowhere in memory. That
rounds differently, so it is for back ends that round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from ..graph import PCGraph, Role
from .lines import Line

_MM = torch.ops.aten.mm.default


class Descent:
    """Updates of parameters at the end of a program.

    Args:
        lines: the program, every name assigned once except for sums in place.
        gradients: name of the gradient by name of the parameter.
        rates: name of the factor (the negative rate) by name of the parameter.
        inputs: names of values from outside that nobody learns and nobody writes to.
        outputs: names that are returned besides.
        products: add products to the parameters at once.

    Attributes:
        possible: whether it can be done: nothing that is read or returned late may be a parameter's own memory.
        updates: the line that changes each parameter.
        dropped: lines that nobody needs any more, by identity.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        gradients: Mapping[str, str],
        rates: Mapping[str, str],
        inputs: Collection[str],
        outputs: Sequence[str],
        *,
        products: bool,
    ) -> None:
        self._inputs = inputs
        self._maker: dict[str, Line] = {}
        self._uses = Counter(name for line in lines for name in line.reads)
        self._uses.update((*gradients.values(), *outputs))
        for line in lines:
            self._maker.update(dict.fromkeys(line.outs, line))
        self.possible = all(self._own(name) for name in (*outputs, *gradients.values()))
        self.updates: dict[str, Line] = {}
        self.dropped: set[int] = set()
        for parameter, gradient in gradients.items():
            product = self._maker.get(gradient) if products else None
            if product is not None and self._uses[gradient] == 1 and self._single(product):
                text = "%s.addmm_(%s, %s, alpha=%s)"
                self.updates[parameter] = Line((), text, (parameter, *product.reads, rates[parameter]))
                self.dropped.add(id(product))
            else:
                text = "%s.add_(%s, alpha=%s)"
                self.updates[parameter] = Line((), text, (parameter, gradient, rates[parameter]))

    def _single(self, line: Line) -> bool:
        """Whether a line is a product of two matrices that are no parameter's memory."""
        return line.target is _MM and line.text == "torch.mm(%s, %s)" and all(map(self._own, line.reads))

    def _own(self, name: str) -> bool:
        """Whether a name can only be memory of the program's own, or of an input."""
        return memories(name, self._maker) <= set(self._inputs)


def unwritten(graph: PCGraph) -> set[str]:
    """Names of inputs that no vertex writes to."""
    operations = [(v, v.operation) for v in graph.vertices.values() if v.operation is not None]
    written = {v.operands[i].vertex for v, operation in operations for i in operation.writes}
    return {f"x_{v.name}" for v in graph.role(Role.INPUT) if v.name not in written}


def memories(name: str, maker: Mapping[str, Line]) -> set[str]:
    """Names of values from outside that may lie in the same memory; errors that arrive are not among them."""
    found: set[str] = set()
    todo, seen = [name], set()
    while todo:
        name = todo.pop()
        line = maker.get(name)
        if line is None:
            found.update(() if name.startswith(("e", "arriving")) else (name,))
        elif name not in seen and _looks(line):
            todo += line.reads
        seen.add(name)
    return found


def _looks(line: Line) -> bool:
    """Whether what a line makes may be memory of what it reads."""
    target: Any = line.target
    if isinstance(target, torch._ops.OpOverload):
        return any(result.alias_info is not None for result in target._schema.returns)
    return " + " not in line.text
