"""``pcgraph bench``: ways to learn, timed side by side on the same model, batch and seed."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..bench.names import AGAIN, BASE, CONTENDERS, MODELS, QUICK
from ..errors import PCGraphError
from .files import check_writable
from .inputs import parse, random_inputs
from .options import Debug, Train
from .prepare import blaming_forward, prepare
from .target import load_model
from .terminal import progress_console, show, write

if TYPE_CHECKING:
    from ..bench.models import Workload
    from ..bench.worker import Task

NOT_EXACT = 1
INTERRUPTED = 130


class Device(StrEnum):
    """Where to measure."""

    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A model of your own: package.module:name, or a path ending in .onnx, with one --input an argument.",
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="SHAPE", help="As for `pcgraph inspect`; only with MODEL."),
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="A,B", help=f"Built-in models ({', '.join(QUICK)} unless given), or all.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="A,B", help="Contenders beside backprop; all unless given.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Say which models and contenders there are.")] = False,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = Device.CPU,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    rounds: Annotated[int, typer.Option(min=2, help="Rounds a model, at most.")] = 200,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of a model's race (7 rounds are run anyway).")] = 20.0,
    limit: Annotated[
        float, typer.Option(min=1, help="Seconds a contender may take to be compiled and checked, and for one step.")
    ] = 120.0,
    memory_limit: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory of the process; 80% of the machine's unless given.")
    ] = None,
    il_steps: Annotated[int, typer.Option(min=1, help="T of inference learning.")] = 20,
    train: Train = True,
    seed: Annotated[int, typer.Option(help="Seed of weights, inputs, random state and order.")] = 0,
    earlier: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Show an earlier report (--json) and measure nothing.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the ratios: .png or .svg.")] = None,
    into: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="Put the tables between their marks in this Markdown."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Race eager backprop, torch.compile, Z-IL, full simulation and inference learning, each checked first.

    Exit code 0, or 1 if something that must be exact is not.
    """
    if listing:
        for title, known in (("models", MODELS), ("contenders", CONTENDERS)):
            write("\n".join([title, *(f"  {name:15} {about}" for name, about in known.items())]))
        return
    chosen = _chosen_models(model, inputs, models)
    contenders = _chosen(only, CONTENDERS, "--only") if only else tuple(CONTENDERS)
    contenders = tuple(key for key in CONTENDERS if key in (*contenders, BASE, AGAIN))
    for path, option in ((json, "--json"), (plot, "--plot"), (into, "--write")):
        if path is not None:
            check_writable(path, option)
    if plot is not None:
        from ..bench.plot import check

        check(plot)
    if earlier is not None:
        from ..bench.report import read

        report = read(earlier)
    else:
        shapes: tuple[str, ...] = ()
        if model is not None:
            prepared = prepare(model, inputs or (), train=train, seed=seed)
            shapes = tuple(map(str, prepared.specs))
            with blaming_forward(prepared):
                _own(model, shapes, train, seed)
        from ..bench.models import built_in
        from ..bench.worker import Task

        def task(name: str) -> Task:
            own = name == model
            build = partial(_own, name, shapes, train, seed) if own else partial(built_in, name, seed)
            return Task(build, contenders, device.value, threads, rounds, seconds, limit, il_steps, seed)

        report = _measured({name: (MODELS.get(name, name), task(name)) for name in chosen}, memory_limit, json)
    _hand_over(report, plot, into)
    if report["interrupted"]:
        raise typer.Exit(INTERRUPTED)
    from ..bench.report import exact

    if not exact(report):
        raise typer.Exit(NOT_EXACT)


def _measured(tasks: dict[str, tuple[str, Task]], memory_limit: float | None, json: Path | None) -> dict[str, Any]:
    from ..bench.run import Settings, run

    console = progress_console()
    with console.status("starting") as status:
        say = partial(console.print, soft_wrap=True, highlight=False)
        return run(Settings(tasks, memory_limit), status.update, say, partial(_keep, json))


def _keep(json: Path | None, report: dict[str, Any]) -> None:
    """After every model, so that a run of hours is not lost whatever happens."""
    if json is not None:
        from ..bench.report import as_json

        json.write_text(as_json(report))


def _hand_over(report: dict[str, Any], plot: Path | None, into: Path | None) -> None:
    from ..bench.report import about, as_markdown, notes, table, write_between

    tables = [table(result) for result in report["results"] if result["contenders"]]
    if tables:
        show(*tables)
    for line in (*about(report), *notes(report)):
        write(line)
    if plot is not None:
        from ..bench.plot import write as draw

        draw(report["results"], plot)
    if into is not None:
        write_between(into, "pcgraph bench", as_markdown(report))


def _own(target: str, shapes: tuple[str, ...], train: bool, seed: int) -> Workload:
    """Build a user's workload; runs in the measuring process."""
    import torch

    from ..bench.models import own

    torch.manual_seed(seed)
    model = load_model(target).train(train)
    return own(model, random_inputs([parse(text) for text in shapes], seed), seed)


def _chosen_models(model: str | None, inputs: Sequence[str] | None, models: str | None) -> tuple[str, ...]:
    if model is not None and not inputs and not model.endswith(".onnx"):
        raise PCGraphError("a model of your own needs its inputs", hint="one --input SHAPE per argument of forward")
    if inputs and model is None:
        raise PCGraphError("--input goes with a MODEL", hint="built-in models (--models) bring their batch along")
    own = () if model is None else (model,)
    if models is None:
        return own or QUICK
    return own + (tuple(MODELS) if models == "all" else _chosen(models, MODELS, "--models"))


def _chosen(text: str, known: dict[str, str], option: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"does not know {', '.join(unknown)}" if unknown else "names nothing"
        raise PCGraphError(f"{option} {what}", hint=f"choose from {', '.join(known)}; see pcgraph bench --list")
    return names
