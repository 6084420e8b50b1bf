"""``pcgraph reproduce``: the paper's tables and figures, measured here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PCGraphError
from .options import Debug
from .terminal import progress_console, write

if TYPE_CHECKING:
    from ..reproduce.cell import Experiment, Found, Settings

NOT_EXACT = 1
GAMES = "Pong,Breakout,Boxing"
IL_STEPS = 20


def reproduce(
    quick: Annotated[bool, typer.Option("--quick/--full", help="Minutes, or hours.")] = True,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This experiment; may be repeated.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Say which experiments and cells there are.")] = False,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where results are kept and looked for.")] = Path(
        "pcgraph-results"
    ),
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Data sets, a folder each; FashionMNIST also where Debian puts it."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, batches and environments.")] = 0,
    games: Annotated[str, typer.Option(metavar="A,B", help="Atari games.")] = GAMES,
    il_steps: Annotated[int, typer.Option(min=1, help="T of inference learning, where it is timed.")] = IL_STEPS,
    debug: Debug = False,
) -> None:
    """Measure every cell of every table, or say why not. What is kept in the folder is not measured again.

    Exit code 0, or 1 if Z-IL differed from backprop anywhere.
    """
    from ..reproduce.cell import Settings
    from ..reproduce.experiments import named
    from ..reproduce.run import differing

    experiments = named(only or [])
    if data is not None and not data.is_dir():
        raise PCGraphError(f"there is no folder {data}", hint="name a folder that holds data sets: --data")
    chosen = tuple(dict.fromkeys(name.strip() for name in games.split(",") if name.strip()))
    settings = Settings(not quick, seed, data, chosen, il_steps)
    if listing:
        for experiment in experiments:
            write(f"{experiment.name}: {experiment.title} ({experiment.source})")
            for cell in experiment.cells(settings):
                write(f"  {cell.name}")
        return
    found = _measured(experiments, settings, output, _command(settings, only or []))
    for experiment in experiments:
        write(f"\n{experiment.title}\n{experiment.table(found[experiment.name])}")
    write(f"\nresults.md, results.json and pictures are in {output}")
    wrong = differing(found)
    if wrong:
        write(f"Z-IL differed from backprop: {', '.join(wrong)}")
        raise typer.Exit(NOT_EXACT)


def _measured(
    experiments: Sequence[Experiment], settings: Settings, output: Path, command: str
) -> dict[str, list[Found]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..reproduce.run import run

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console, begun = progress_console(), -1
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)

        def step(done: int, of: int, what: str) -> None:
            nonlocal begun
            progress.update(task, completed=done, total=of, description=what)
            if what and done > begun and not console.is_terminal:  # a log has a line a cell
                begun = done
                console.print(f"{done + 1} of {of}: {what}", soft_wrap=True, highlight=False)

        return run(experiments, settings, output, command=command, step=step)


def _command(settings: Settings, only: Sequence[str]) -> str:
    """What was typed, as far as it bears on the figures; folders are nobody's business."""
    words = ["pcgraph reproduce", "--full" if settings.full else "--quick", *(f"--only {name}" for name in only)]
    if settings.seed:
        words.append(f"--seed {settings.seed}")
    if ",".join(settings.games) != GAMES:
        words.append(f"--games '{','.join(settings.games)}'")
    if settings.il_steps != IL_STEPS:
        words.append(f"--il-steps {settings.il_steps}")
    if settings.data is not None:
        words.append("--data FOLDER")
    return " ".join(words)
