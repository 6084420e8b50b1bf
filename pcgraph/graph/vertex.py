"""What a vertex is: a prediction of its parents' values, with a value node and an error node.

A vertex ``v`` predicts ``mu_v = f_v(parents)``. On a differentiable vertex compilation puts a
value node ``x_v`` and an error node ``eps_v = x_v - mu_v`` (paper's sign). Vertices without a
gradient (masks, indices, counters) are evaluated and carry no error.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


class Role(enum.Enum):
    """Where the value of a vertex comes from."""

    INPUT = "input"  # an argument of the call
    PARAMETER = "parameter"  # learned; its gradient is asked for
    STATE = "state"  # buffers, constants, frozen parameters: read, perhaps written, never learned
    OPERATION = "operation"  # predicted by its parents
    RELAY = "relay"  # identity: passes an error on one step later (levelling)


class Ref(NamedTuple):
    """One output of one vertex: what an operand or a graph output points at."""

    vertex: str
    output: int = 0

    def __str__(self) -> str:
        return f"%{self.vertex}" + (f".{self.output}" if self.output else "")


class Use(NamedTuple):
    """A use of a value: operand number `operand` of vertex `child` reads `source`.

    Keyed by operand, never by child: ``x * x`` uses ``x`` twice.
    """

    source: Ref
    child: str
    operand: int


class ParameterUse(NamedTuple):
    """A use of a parameter, with the inference step at which that use contributes its update."""

    parameter: str
    child: str
    operand: int
    update_time: int | None


class Source(NamedTuple):
    """The user's line that made a vertex."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What is known of a tensor before it exists. `requires_grad` marks a value that has an error node."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool = False

    @staticmethod
    def of(tensor: torch.Tensor) -> TensorSpec:
        """Read the spec off a tensor (layouts without strides get the empty stride)."""
        key = (
            tuple(tensor.shape),
            tensor.stride() if tensor.layout is torch.strided else (),
            tensor.dtype,
            tensor.device,
            tensor.requires_grad,
        )
        spec = _specs.get(key)
        if spec is None:
            if len(_specs) >= _MAX_SPECS:
                _specs.clear()
            spec = _specs[key] = TensorSpec(*key)
        return spec

    def __str__(self) -> str:
        return f"{short_dtype(self.dtype)}[{','.join(map(str, self.shape))}]"


_specs: dict[Any, TensorSpec] = {}  # tensors that look the same share one: long networks have few kinds of them
_MAX_SPECS = 4096
_SHORT = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}


def short_dtype(dtype: torch.dtype) -> str:
    """``torch.float32`` -> ``f32``.

    >>> short_dtype(torch.bfloat16)
    'bf16'
    """
    name = str(dtype).removeprefix("torch.")
    head = name.rstrip("0123456789")
    return _SHORT.get(head, head) + name[len(head) :]


@dataclass(frozen=True, slots=True)
class Slot:
    """Placeholder for tensor operand number `index` inside an argument template."""

    index: int


@dataclass(frozen=True, slots=True)
class Operation:
    """The function ``f_v``: a torch-level callable and its arguments, with `Slot`s where operands go.

    An argument may be an operation itself: ``linear(tanh(x), w)`` is one function of a value node and a parameter, and
    there is none in between. All slots of such a tree are operands of its root's vertex.

    Attributes:
        name: short name for people, e.g. ``linear``.
        target: the callable.
        args, kwargs: argument template; nested tuples, lists, dicts and slices of constants, `Slot`s and operations.
        writes: operands that are changed in place when the operation runs (running statistics).
        random: draws from a random number generator.
        opaque: why the local program cannot be traced ahead, or None. An opaque vertex is
            evaluated with its own one-vertex autograd graph.
    """

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    writes: tuple[int, ...] = ()
    random: bool = False
    opaque: str | None = None

    def __call__(self, *operands: Any) -> Any:
        """Evaluate on operand tensors, in operand order."""
        args = fill(self.args, operands)
        kwargs = {name: fill(value, operands) for name, value in self.kwargs}
        return self.target(*args, **kwargs)

    @property
    def items(self) -> tuple[Any, ...]:
        """Constants, slots and operations in the argument template."""
        return (*items_of(self.args), *(item for _, value in self.kwargs for item in items_of(value)))

    @property
    def parts(self) -> tuple[Operation, ...]:
        """This operation, and all those among its arguments."""
        inner = (item for item in self.items if isinstance(item, Operation))
        return (self, *(part for operation in inner for part in operation.parts))

    def __str__(self) -> str:
        inner = ", ".join(str(item) for item in self.items if isinstance(item, Operation))
        return f"{self.name}({inner})" if inner else self.name


def items_of(template: Any) -> Iterator[Any]:
    """What an argument template is made of: constants, `Slot`s and operations.

    >>> list(items_of((Slot(1), [Slot(0), 3])))
    [Slot(index=1), Slot(index=0), 3]
    """
    if isinstance(template, tuple | list):
        for item in template:
            yield from items_of(item)
    elif isinstance(template, dict):
        for item in template.values():
            yield from items_of(item)
    elif isinstance(template, slice):
        yield from (template.start, template.stop, template.step)
    else:
        yield template


def fill(template: Any, operands: Sequence[Any]) -> Any:
    """Put `operands` into the slots of an argument template.

    >>> fill((Slot(1), [Slot(0), 3]), ("a", "b"))
    ('b', ['a', 3])
    """
    return substituted(template, lambda item: operands[item.index] if isinstance(item, Slot) else item(*operands))


def substituted(template: Any, change: Callable[[Slot | Operation], Any]) -> Any:
    """An argument template with something else in the place of its slots and operations.

    >>> substituted({"dim": Slot(0), "k": 3}, lambda slot: slot.index + 7)
    {'dim': 7, 'k': 3}
    """
    if isinstance(template, Slot | Operation):
        return change(template)
    if isinstance(template, tuple):
        values = [substituted(item, change) for item in template]
        return type(template)(*values) if hasattr(template, "_fields") else tuple(values)
    if isinstance(template, list):
        return [substituted(item, change) for item in template]
    if isinstance(template, dict):
        return {key: substituted(value, change) for key, value in template.items()}
    if isinstance(template, slice):
        return slice(*(substituted(item, change) for item in (template.start, template.stop, template.step)))
    return template


class Checkpoint(NamedTuple):
    """A part of the model whose values are not kept but computed again while learning.

    Attributes:
        number: tells checkpoints apart.
        keeps_random_state: it draws the same random numbers again.
    """

    number: int
    keeps_random_state: bool


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """One vertex of a `PCGraph`.

    Attributes:
        name: unique in its graph.
        role: where the value comes from.
        outputs: spec of each tensor that the vertex yields (None for a non-tensor item of a tuple).
        operands: what it reads, in operand order; the same value may appear more than once.
        operation: ``f_v``; None for inputs, parameters, state and relays.
        multi: the operation returns a tuple or list, even if of one item.
        effect: runs even if nobody reads its value (it writes state).
        module_path: the user's module, e.g. ``layer1.0.conv1``; for parameters and state the qualified name.
        source: the user's line.
        checkpoint: what it is computed again with, if it lies in a checkpointed part of the model.
    """

    name: str
    role: Role
    outputs: tuple[TensorSpec | None, ...]
    operands: tuple[Ref, ...] = ()
    operation: Operation | None = None
    multi: bool = False
    effect: bool = False
    module_path: str = ""
    source: Source | None = None
    checkpoint: Checkpoint | None = None

    @property
    def differentiable(self) -> bool:
        """Has an error node: at least one output carries a gradient."""
        return any(spec is not None and spec.requires_grad for spec in self.outputs)

    @property
    def op(self) -> str:
        """Name of the operation, or the role of a vertex that has none."""
        return str(self.operation) if self.operation else self.role.value

    def where(self) -> str:
        """The user's module path and line, for messages."""
        return " ".join(part for part in (self.module_path, f"({self.source})" if self.source else "") if part)
