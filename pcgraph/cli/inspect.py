"""``pcgraph inspect``: the predictive coding graph of a model."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from .options import Debug, Inputs, Model, Seed, Train
from .prepare import blaming_forward, prepare
from .terminal import show, status, write


class Format(StrEnum):
    """What the graph can be printed as."""

    TABLE = "table"
    JSON = "json"
    DOT = "dot"


def inspect(
    model: Model,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    train: Train = True,
    seed: Seed = 0,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.TABLE,
    levels: Annotated[bool, typer.Option("--levels", help="Group vertices by depth.")] = False,
    schedule: Annotated[bool, typer.Option("--schedule", help="Add what runs at each inference step.")] = False,
    debug: Debug = False,
) -> None:
    """Show vertices, shapes, parameters, depths, update times and relays of a model's graph."""
    if schedule and format is Format.DOT:
        raise typer.BadParameter("goes with --format table or json", param_hint="--schedule")
    prepared = prepare(model, inputs, train=train, seed=seed)
    import pcgraph

    with status(f"compiling {model}"), blaming_forward(prepared):
        network = pcgraph.compile(prepared.model, example_inputs=prepared.inputs)
    graph = network.graph
    if format is Format.TABLE:
        from .table import opaque_vertices, summary_table, vertex_table

        show(vertex_table(graph, by_level=levels), summary_table(graph), *opaque_vertices(graph))
        if schedule:
            write(f"\n{network.schedule}")
    elif format is Format.JSON:
        from .jsonform import describe

        document = {
            "model": model,
            "mode": "train" if train else "eval",
            "inputs": list(map(str, prepared.specs)),
            **describe(graph, by_level=levels),
        }
        if schedule:
            document["schedule"] = str(network.schedule).splitlines()
        write(json.dumps(document, indent=2))
    else:
        from .dot import to_dot

        write(to_dot(graph, by_level=levels))
