"""From the command line's words to a model and its inputs, and what to say when forward fails on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import typer

from ..errors import PCGraphError
from .inputs import InputSpec, parse, random_inputs
from .target import load_model
from .terminal import loading

if TYPE_CHECKING:
    import torch
    from torch import nn


class Prepared(NamedTuple):
    """A model in the mode asked for, and one random tensor per ``--input``."""

    model: nn.Module
    inputs: tuple[torch.Tensor, ...]
    specs: tuple[InputSpec, ...]


def prepare(target: str, shapes: Sequence[str], *, train: bool, seed: int, batch: int | None = None) -> Prepared:
    """Load the model from the seed, put it in train or eval mode, and make its inputs.

    Args:
        target: see `load_model`.
        shapes: texts of ``--input``.
        train: the mode.
        seed: of initialisation and inputs.
        batch: what `shapes_of` puts for a first size that the file leaves open.

    Raises:
        PCGraphError: see `load_model`, `parse` and `shapes_of`.
    """
    specs = tuple(parse(text) for text in shapes)  # before torch: a typing error is answered at once
    with loading(target) as tell:
        import torch

        torch.manual_seed(seed)
        model = load_model(target, tell).train(train)
        specs = specs or shapes_of(model, batch)
        return Prepared(model, random_inputs(specs, seed), specs)


def shapes_of(model: nn.Module, batch: int | None = None) -> tuple[InputSpec, ...]:
    """Shapes of the inputs of an ONNX file, where it fixes them.

    Args:
        model: from an ONNX file.
        batch: to be put for a first size that is open; None to refuse that one too.

    Raises:
        PCGraphError: the file leaves a size or the range of an integer open.
        typer.BadParameter: the model is from elsewhere.
    """
    from ..onnx.module import OnnxModule

    if not isinstance(model, OnnxModule):
        raise typer.BadParameter("a model needs its inputs, one per argument of forward", param_hint="--input")
    specs = []
    for known in model.provenance.inputs:
        sizes = None if known.shape is None else tuple(known.shape)
        if batch is not None and sizes and sizes[0] is None:
            sizes = (batch, *sizes[1:])
        dtype = str(known.dtype).removeprefix("torch.")
        if sizes is None or not all(sizes) or not (known.dtype.is_floating_point or dtype == "bool"):
            text = "no shape" if sizes is None else "x".join("?" if s is None else str(s) for s in sizes) or "a scalar"
            raise PCGraphError(
                f"the file does not fix its input {known.name!r}: {text}, {dtype}",
                hint=f"give one --input for each of {', '.join(repr(i.name) for i in model.provenance.inputs)}",
            )
        specs.append(InputSpec(tuple(size for size in sizes if size is not None), dtype))
    return tuple(specs)


@contextmanager
def blaming_forward(prepared: Prepared) -> Iterator[None]:
    """Tell a model that cannot run on these inputs from an error of pcgraph.

    If the body fails, the plain model is run on the same inputs. If that fails too, its own error is
    what the user needs to read; if not, the body's error stands.
    """
    try:
        yield
    except Exception:
        failure = _failure(prepared)
        if failure is None:
            raise
        shapes = ", ".join(map(str, prepared.specs))
        raise PCGraphError(
            f"{type(prepared.model).__name__}.forward fails on --input {shapes}: {type(failure).__name__}: {failure}",
            hint="give the model's own shapes and dtypes, one --input per argument of forward",
        ) from failure


def _failure(prepared: Prepared) -> Exception | None:
    import torch

    try:
        with torch.no_grad():
            prepared.model(*prepared.inputs)
    except Exception as error:
        return error
    return None
