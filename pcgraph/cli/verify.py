"""``pcgraph verify``: the distance from backprop, parameter by parameter."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .options import Backend, BackendName, Debug, Inputs, Model, Seed, TextFormat, Train
from .prepare import blaming_forward, prepare
from .terminal import status, write

NOT_EXACT = 1


def verify(
    model: Model,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    train: Train = True,
    seed: Seed = 0,
    backend: Backend = BackendName.EAGER,
    format: Annotated[TextFormat, typer.Option(help="What to print.")] = TextFormat.TABLE,
    debug: Debug = False,
) -> None:
    """Compare one Z-IL step with backprop. Exit code 0 if every bit is equal, 1 if not.

    With ``--backend inductor`` it is 0 if every tensor is as close to float64 as backprop's own, up to a small factor.
    """
    prepared = prepare(model, inputs, train=train, seed=seed)
    import pcgraph

    with status(f"verifying {model}"), blaming_forward(prepared):
        report = pcgraph.verify(prepared.model, prepared.inputs, backend=backend.value)
    write(json.dumps(report.to_dict(), indent=2) if format is TextFormat.JSON else str(report))
    if not (report.exact if backend is BackendName.EAGER else report.close):
        raise typer.Exit(NOT_EXACT)
