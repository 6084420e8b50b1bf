"""Lines of generated Python: one ATen call each, as a format string over names."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..graph.vertex import Slot

_counter = itertools.count()
_aten = torch.ops.aten


def fresh_name() -> str:
    """A name for a constant of generated code, unique in the process."""
    return f"k{next(_counter)}"


@dataclass(frozen=True, slots=True)
class Line:
    """``outs = expression % reads``.

    Attributes:
        outs: names that the line assigns (none: a call for its effect).
        text: the right-hand side, with one ``%s`` per read.
        reads: names that the line reads, in the order of the ``%s``.
        constants: objects that the text refers to by name.
        target: what is called, where that is known ahead: a back end may ask it for its properties.
    """

    outs: tuple[str, ...]
    text: str
    reads: tuple[str, ...]
    constants: tuple[tuple[str, Any], ...] = ()
    target: Any = None

    def renamed(self, names: Mapping[str, str]) -> Line:
        """The same line over other names."""
        outs, reads = tuple(names[n] for n in self.outs), tuple(names[n] for n in self.reads)
        return Line(outs, self.text, reads, self.constants, self.target)

    def render(self) -> str:
        """Python source of the line."""
        right = self.text % self.reads if self.reads else self.text.replace("%%", "%")
        return f"{', '.join(self.outs)} = {right}" if self.outs else right


class Literals:
    """Writes argument templates as source text, collecting constants that have no literal."""

    def __init__(self, name_of: Callable[[Any], str | None]) -> None:
        self._name_of = name_of
        self.reads: list[str] = []
        self.constants: dict[str, Any] = {"torch": torch}

    def constant(self, value: Any) -> str:
        """A name for an object that cannot be written down."""
        name = fresh_name()
        self.constants[name] = value
        return name

    def text(self, value: Any) -> str:
        """Source text of one argument."""
        read = self._name_of(value)
        if read is not None:
            self.reads.append(read)
            return "%s"
        if isinstance(value, bool | int) or value is None or value is Ellipsis:
            return repr(value)
        if type(value) is str:
            return repr(value).replace("%", "%%")
        if type(value) is float:
            return repr(value) if math.isfinite(value) else self.constant(value)
        if type(value) in (tuple, torch.Size):
            return "(" + "".join(self.text(item) + ", " for item in value) + ")"
        if isinstance(value, list):
            return "[" + ", ".join(self.text(item) for item in value) + "]"
        if type(value) is dict and all(type(key) is str for key in value):
            return "{" + ", ".join(f"{key!r}: {self.text(item)}" for key, item in value.items()) + "}"
        if isinstance(value, slice):
            return "slice(" + ", ".join(self.text(v) for v in (value.start, value.stop, value.step)) + ")"
        if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
            return str(value)
        return self.constant(value)


# Operations whose builtin takes the same arguments as the overloads and is called faster.
_BUILTIN = {
    "torch": (
        "mm t addmm tanh sigmoid relu transpose bmm native_layer_norm sum convolution native_batch_norm permute "
        "unsqueeze clone empty_like embedding split cat ones_like sin cos exp neg select stack where div rsqrt pow "
        "_softmax _log_softmax _softmax_backward_data _log_softmax_backward_data zeros_like addcmul native_group_norm"
    ),
    "torch._C._nn": "linear gelu silu max_pool2d_with_indices avg_pool2d hardtanh leaky_relu",
}
_FAST: dict[Any, str] = {
    getattr(getattr(_aten, name), overload): f"{home}.{name}"
    for home, names in _BUILTIN.items()
    for name in names.split()
    for overload in getattr(_aten, name).overloads()
    if not overload.endswith("out")
}
_INFIX = {_aten.add.Tensor: "+", _aten.mul.Tensor: "*", _aten.sub.Tensor: "-"}
_METHOD = {
    _aten.view.default: "view",
    _aten._unsafe_view.default: "view",
    _aten.expand.default: "expand",
    _aten.add_.Tensor: "add_",
    _aten.mul_.Tensor: "mul_",
    _aten.div_.Scalar: "div_",
}
_IRRELEVANT = ("pin_memory", "layout")  # always their defaults in traced factory calls of strided tensors


def line_of(node: fx.Node, name_of: Callable[[Any], str | None], out: str | None) -> Line:
    """One traced ATen call as a line."""
    literals = Literals(name_of)
    target, kwargs = node.target, dict(node.kwargs)
    text: str
    if target is operator.getitem:
        text = f"{literals.text(node.args[0])}[{node.args[1]}]"
    elif target in _INFIX and not kwargs and len(node.args) == 2 and isinstance(node.args[0], fx.Node):
        text = f" {_INFIX[target]} ".join(literals.text(arg) for arg in node.args)
    elif target in _METHOD and not kwargs:
        head, *rest = (literals.text(arg) for arg in node.args)
        text = f"{head}.{_METHOD[target]}({', '.join(rest)})"
    else:
        for name in _IRRELEVANT:
            if kwargs.get(name) in (False, None, torch.strided):
                kwargs.pop(name, None)
        args = [literals.text(arg) for arg in node.args]
        args += [f"{name}={literals.text(value)}" for name, value in kwargs.items()]
        function = _FAST.get(target) or literals.constant(getattr(target, "_op", target))
        text = f"{function}({', '.join(args)})"
    return Line((out,) if out else (), text, tuple(literals.reads), tuple(literals.constants.items()), target)


def native_line(operation: Any, operands: list[str], outs: tuple[str, ...], multi: bool) -> Line:
    """A vertex without an error: its torch-level call as it stands."""
    literals = Literals(lambda value: operands[value.index] if isinstance(value, Slot) else None)
    args = [literals.text(arg) for arg in operation.args]
    args += [f"{name}={literals.text(value)}" for name, value in operation.kwargs]
    text = f"{literals.constant(operation.target)}({', '.join(args)})"
    if multi and len(outs) == 1:
        text += "[0]"
    return Line(outs, text, tuple(literals.reads), tuple(literals.constants.items()), operation.target)
