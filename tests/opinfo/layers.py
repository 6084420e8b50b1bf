"""The modules of `torch.nn` as models, made of the samples of torch's database."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.opinfo.cases import FLOATS, Built, Case, Role, seed_all, spread
from tests.opinfo.leaves import Copies, replace_tensors
from tests.opinfo.operations import describe

FUSED = ("nn.LSTM",)
"""oneDNN runs these by one kernel, which rounds in another order than the network of single time steps."""


def cases_of_module(info: Any, dtype: torch.dtype, most: int, role: Role) -> Iterator[Case]:
    """At most so many samples of a module in one mode."""
    seed_all(0)
    training = role is Role.TRAIN
    found = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
    samples = [sample for sample in found if sample.forward_input is not None]
    for index, sample in spread(samples, most):
        build = functools.partial(_build, info.module_cls, dtype, training, sample)
        made = (sample.constructor_input, sample.forward_input)
        detail = " on ".join(f"({describe(tuple(part.args), part.kwargs)})" for part in made)
        yield Case(info.name, role, dtype, index, build, rounds_alike=info.name not in FUSED, detail=detail)


def dtypes_of_module(info: Any) -> tuple[torch.dtype, ...]:
    """Single and double precision, where the module has them."""
    supported = info.supported_dtypes("cpu")
    return tuple(d for d in FLOATS if d in supported)


def _build(layer: type[nn.Module], dtype: torch.dtype, training: bool, sample: Any) -> Built:
    copies = Copies()
    made, given = sample.constructor_input, sample.forward_input
    seed_all(2)
    model = layer(*replace_tensors(list(made.args), copies), **replace_tensors(made.kwargs, copies))
    model = model.to(dtype).train(training)
    args, kwargs = replace_tensors((tuple(given.args), given.kwargs), copies)
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        _materialise(model, args, kwargs)
    return Built(model, args, kwargs)


def _materialise(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run a lazy module once, as it must be before it can be compiled; its tensors get their shapes."""
    with torch.no_grad():
        model(*copy.deepcopy(_detached(args)), **copy.deepcopy(_detached(kwargs)))


def _detached(tree: Any) -> Any:
    def detach(tensor: Tensor) -> Tensor:
        return tensor.detach()

    return replace_tensors(tree, detach)
