"""Models of one operation each, made of the samples of torch's database."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.opinfo.cases import FLOATS, Built, Case, Role, seed_all, spread
from tests.opinfo.leaves import Copies, copied, differentiable, replace_tensors
from tests.opinfo.losses import loss_of

Operation = Callable[..., Any]
COMPLEX = (torch.complex64, torch.complex128)


@dataclass(frozen=True)
class Sample:
    """One call.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        broadcasts: whether the first argument is broadcast to the shape of the result.
        view: what of the output has a gradient (of an eigenvector its absolute value: the phase is free).
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    broadcasts: bool = False
    view: Operation = lambda output: output


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor of the model among the arguments of the operation."""

    name: str


class OfParameters(nn.Module):
    """Calls the operation on tensors of its own; called without arguments."""

    def __init__(self, operation: Operation, sample: Sample, every: bool, inplace: bool = False) -> None:
        super().__init__()
        self.operation, self.inplace = operation, inplace
        copies, names = Copies(), dict[int, str]()

        def register(tensor: Tensor) -> Slot:
            fresh = copies(tensor)
            if id(fresh) not in names:
                names[id(fresh)] = name = f"operand_{len(names)}"
                learns = tensor.requires_grad or (every and differentiable(tensor))
                if learns:
                    self.register_parameter(name, nn.Parameter(fresh.detach()))
                else:
                    self.register_buffer(name, fresh)
            return Slot(names[id(fresh)])

        self.places = replace_tensors(sample.args, register)
        self.named_places = replace_tensors(sample.kwargs, register)

    def forward(self) -> Any:
        args = self._filled(self.places)
        kwargs = self._filled(self.named_places)
        if self.inplace:
            args = (args[0].clone(), *args[1:])
        return self.operation(*args, **kwargs)

    def _filled(self, tree: Any) -> Any:
        if isinstance(tree, Slot):
            return getattr(self, tree.name)
        if isinstance(tree, dict):
            return {key: self._filled(value) for key, value in tree.items()}
        if isinstance(tree, slice):
            return slice(self._filled(tree.start), self._filled(tree.stop), self._filled(tree.step))
        if isinstance(tree, list):
            return [self._filled(part) for part in tree]
        return tuple([self._filled(part) for part in tree]) if type(tree) is tuple else tree


class OfInputs(nn.Module):
    """Calls the operation on the arguments of the call."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.operation(*args, **kwargs)


def dtypes_of(op: Any) -> tuple[torch.dtype, ...]:
    """Single and double precision; complex where the operation has no real operands."""
    supported = op.supported_dtypes("cpu")
    return tuple(d for d in FLOATS if d in supported) or tuple(d for d in COMPLEX if d in supported)


def samples_of(op: Any, dtype: torch.dtype) -> list[Sample]:
    """All valid calls of the operation in the database."""
    seed_all(0)
    found = op.sample_inputs("cpu", dtype, requires_grad=True)
    return [
        Sample((s.input, *s.args), s.kwargs, s.broadcasts_input, s.output_process_fn_grad or Sample.view) for s in found
    ]


def cases_of(op: Any, dtype: torch.dtype, most: int, roles: tuple[Role, ...]) -> Iterator[Case]:
    """Every role of at most so many samples of an operation."""
    for index, sample in spread(samples_of(op, dtype), most):
        for role in roles:
            build = _builder(op, sample, role)
            if build is not None:
                words = describe(sample.args, sample.kwargs)
                yield Case(op.full_name, role, dtype, index, build, settled=_settled(op, sample), detail=words)


def _settled(op: Any, sample: Sample) -> bool:
    """False for LAPACK's gelsy: torch does not set the pivots that it starts from."""
    return op.name != "linalg.lstsq" or sample.kwargs.get("driver", "gelsy") != "gelsy"


def _builder(op: Any, sample: Sample, role: Role) -> Callable[[], Built] | None:
    first = sample.args[0]
    if role is Role.INPUT:
        return functools.partial(of_inputs, op.op, sample)
    if role is Role.PARAMETER:
        return of_parameters(op.op, sample)
    if role is Role.METHOD:
        return of_parameters(op.method_variant, sample) if op.method_variant else None
    if op.inplace_variant is None or sample.broadcasts or not isinstance(first, Tensor) or not differentiable(first):
        return None
    return of_parameters(op.inplace_variant, sample, inplace=True)


def of_inputs(operation: Operation, sample: Sample) -> Built:
    """The operation as a model that takes the operands as arguments."""
    args, kwargs = copied((sample.args, sample.kwargs))
    return Built(OfInputs(operation), args, kwargs, sample.view)


def of_parameters(operation: Operation, sample: Sample, inplace: bool = False) -> Callable[[], Built]:
    """Every floating operand is a parameter if autograd allows it, else those that need a gradient in the sample."""

    @functools.cache
    def every() -> bool:
        try:
            seed_all(1)
            loss = loss_of(sample.view(OfParameters(operation, sample, True, inplace)()))
            if loss is not None:
                loss.backward()
        except Exception:
            return False
        return True

    return lambda: Built(OfParameters(operation, sample, every(), inplace), view=sample.view)


def describe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A call in words: shapes for tensors."""

    def words(tensor: Tensor) -> _Words:
        kind = str(tensor.dtype).removeprefix("torch.")
        strides = "" if tensor.layout is not torch.strided or tensor.is_contiguous() else f" strides {tensor.stride()}"
        return _Words(f"<{kind}{list(tensor.shape)}{strides}{' grad' if tensor.requires_grad else ''}>")

    args, kwargs = replace_tensors((args, kwargs), words)
    return ", ".join([*(repr(arg) for arg in args), *(f"{key}={value!r}" for key, value in kwargs.items())])


class _Words(str):
    def __repr__(self) -> str:
        return str(self)
