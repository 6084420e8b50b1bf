"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

_DEBUG = "pcgraph.debug"


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.meta[_DEBUG] = True  # one mapping for the group and its commands
    return value


def debugging(ctx: Any) -> bool:
    """Whether ``--debug`` was given, before or behind the command's name."""
    return bool(ctx.meta.get(_DEBUG, False))


class TextFormat(StrEnum):
    """What a report can be printed as."""

    TABLE = "table"
    JSON = "json"


class BackendName(StrEnum):
    """What runs the compiled programs."""

    EAGER = "eager"
    INDUCTOR = "inductor"


class ValueNodes(StrEnum):
    """Where there are value and error nodes."""

    OPERATIONS = "operations"
    LAYERS = "layers"


Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error.")]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="package.module:name, where name is an nn.Module or something that makes one when called without "
        "arguments. The current folder can be imported from. Or a path that ends in .onnx.",
    ),
]
Inputs = Annotated[
    list[str],
    typer.Option(
        "--input",
        "-i",
        metavar="SHAPE",
        help="One per argument of forward: 8x3x32x32 (float32), 8x3x32x32:float64, or '8x64:int64<256' for integers "
        "from 0 to 255 (in quotes: < means something to the shell), scalar for no dimension. Filled with seeded random "
        "numbers. An ONNX file that fixes its shapes needs none.",
    ),
]
Backend = Annotated[
    BackendName,
    typer.Option("--backend", help="eager: to the bit like backprop. inductor: fused kernels, equal up to rounding."),
]
Train = Annotated[bool, typer.Option("--train/--eval", help="Mode that the model is put in.")]
Seed = Annotated[int, typer.Option(help="Seed of the model's initialisation and of the random inputs.")]
