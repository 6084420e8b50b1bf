"""Memory that inference steps use again: calls that write where they are told to, and scratch for what dies at once.

An inference step makes the same tensors as the one before. Allocating them anew costs more than many of the kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..graph import TensorSpec
from .lines import Line, fresh_name
from .script import Script

_aten = torch.ops.aten
_OUT = frozenset(f"torch.{name}" for name in "mm bmm tanh sigmoid sin cos exp".split())
_GRAD_INPUT: dict[Any, Any] = {
    getattr(_aten, name).default._op: getattr(_aten, name).grad_input._op
    for name in ("tanh_backward", "sigmoid_backward", "threshold_backward")
}
_INFIX = {"%s + %s": "add", "%s - %s": "sub", "%s * %s": "mul"}


def into(line: Line, buffer: str, still: Collection[str] = ()) -> Line | None:
    """The same call with its result in `buffer`, which is laid out like it; None if the call cannot do that.

    The kernel is the same, and so are the bits. `still` are values that do not move: views of
    them are made once.
    """
    if len(line.outs) != 1:
        return None
    if line.text in _INFIX:
        return Line((), f"torch.{_INFIX[line.text]}(%s, %s, out=%s)", (*line.reads, buffer))
    if line.text == "torch._C._nn.linear(%s, %s, %s)":  # with a vector for a bias: of matrices
        value, weight, bias = line.reads
        if weight in still:
            return Line((), "torch.addmm(%s, %s, %s, out=%s)", (bias, value, transposed(weight), buffer))
        return Line((), "torch.addmm(%s, %s, %s.t(), out=%s)", (bias, value, weight, buffer))
    function, _, rest = line.text.partition("(")
    if function in _OUT:
        return Line((), f"{function}({rest[:-1]}, out=%s)", (*line.reads, buffer), line.constants)
    called = dict(line.constants).get(function)
    if called is not None and called in _GRAD_INPUT:
        name = fresh_name()
        text = f"{name}({rest[:-1]}, grad_input=%s)"
        return Line((), text, (*line.reads, buffer), (*line.constants, (name, _GRAD_INPUT[called])))
    return None


def transposed(weight: str) -> str:
    """Name of a view of a weight that is made once, before the steps."""
    return f"v_{weight}"


class Scratch:
    """Buffers that are free again when a level is done; levels share them. They are made before the steps begin."""

    def __init__(self) -> None:
        self._made: dict[TensorSpec, list[str]] = {}
        self._used: dict[TensorSpec, int] = {}
        self._before: dict[str, Line] = {}

    def take(self, spec: TensorSpec) -> str:
        """A buffer of this layout that nobody else uses at this level."""
        spec = replace(spec, requires_grad=False)
        number = self._used[spec] = self._used.get(spec, 0) + 1
        made = self._made.setdefault(spec, [])
        if len(made) < number:
            made.append(f"b{sum(map(len, self._made.values()))}")
        return made[number - 1]

    def owns(self, name: str) -> bool:
        """Whether a name is one of the buffers."""
        return any(name in names for names in self._made.values())

    def views(self, lines: Sequence[Line]) -> None:
        """Take down which views lines read."""
        for read in (read for line in lines for read in line.reads if read.startswith("v_")):
            self._before.setdefault(read, Line((read,), "%s.t()", (read.removeprefix("v_"),)))

    def once(self, line: Line) -> None:
        """Take down what is made before the steps; a name stands for the same line wherever it is asked for."""
        self.views([line])
        self._before.setdefault(line.outs[0], line)

    def free(self) -> None:
        """Everything is free again."""
        self._used.clear()

    def make(self, script: Script) -> None:
        """Emit the allocations and views."""
        script.lines(list(self._before.values()))
        for spec, names in self._made.items():
            for name in names:
                like = f"{spec.shape}, {spec.stride}, dtype={spec.dtype}, device={str(spec.device)!r}"
                script.add(f"{name} = torch.empty_strided({like})")
