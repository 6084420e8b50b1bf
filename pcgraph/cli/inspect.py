"""``pcgraph inspect``: the predictive coding graph of a model."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Debug, Inputs, Model, Seed, Train, ValueNodes
from .prepare import Prepared, blaming_forward, prepare
from .terminal import show, status, write

if TYPE_CHECKING:
    from ..runtime import PCNetwork


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
    value_nodes: Annotated[
        ValueNodes, typer.Option(help="On every operation, or on layers: what has no parameters joins its reader.")
    ] = ValueNodes.OPERATIONS,
    debug: Debug = False,
) -> None:
    """Show vertices, shapes, parameters, depths, update times and relays of a model's graph."""
    if schedule and format is Format.DOT:
        raise typer.BadParameter("goes with --format table or json", param_hint="--schedule")
    if format is Format.JSON:
        wanted: Any = {"levels": levels, "schedule": schedule, "value_nodes": value_nodes.value}
        write(json.dumps(document(model, inputs, train, seed, **wanted), indent=2))
        return
    network, _ = _compiled(model, inputs, train, seed, value_nodes.value)
    if format is Format.TABLE:
        from .table import opaque_vertices, summary_table, vertex_table

        graph = network.graph
        show(vertex_table(graph, by_level=levels), summary_table(graph), *opaque_vertices(graph))
        if schedule:
            write(f"\n{network.schedule}")
    else:
        from .dot import to_dot

        write(to_dot(network.graph, by_level=levels))


def document(
    model: str,
    inputs: list[str],
    train: bool,
    seed: int,
    *,
    levels: bool = False,
    schedule: bool = False,
    value_nodes: str = "operations",
) -> dict[str, Any]:
    """The graph of a model as plain data."""
    from .jsonform import describe

    network, prepared = _compiled(model, inputs, train, seed, value_nodes)
    result = {
        "model": model,
        "mode": "train" if train else "eval",
        "inputs": list(map(str, prepared.specs)),
        **describe(network.graph, by_level=levels),
    }
    if schedule:
        result["schedule"] = str(network.schedule).splitlines()
    return result


def _compiled(model: str, inputs: list[str], train: bool, seed: int, value_nodes: str) -> tuple[PCNetwork, Prepared]:
    prepared = prepare(model, inputs, train=train, seed=seed)
    import pcgraph

    with status(f"compiling {model}"), blaming_forward(prepared):
        network = pcgraph.compile(prepared.model, example_inputs=prepared.inputs, value_nodes=value_nodes)
        return network, prepared
