"""``pcgraph demo``: train real networks on real images, with backprop and with Z-IL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..demo.names import Model, Source
from .files import check_writable
from .options import Debug
from .terminal import progress_console, show, write

NOT_EXACT = 1


def demo(
    data: Annotated[Source, typer.Option(help="Images to learn.")] = Source.DIGITS,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of IDX files for fashion-mnist; else where Debian's package puts them.")
    ] = None,
    model: Annotated[list[Model] | None, typer.Option(help="Train only this network; may be repeated.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every network.")] = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Use that many training images (fashion-mnist: 6400 unless given).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches, dropout and the held-back images.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    report: Annotated[Path, typer.Option(metavar="FILE", help="Where to write the figures as JSON.")] = Path(
        "pcgraph-demo.json"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A few steps only, to see that everything runs.")] = False,
    debug: Debug = False,
) -> None:
    """Train three networks twice from one seed and compare. Exit code 0 if all weights are equal, 1 if not."""
    from ..demo.report import as_table, notes
    from ..demo.report import write as write_report
    from ..demo.run import Settings, progress_bar, run

    check_writable(report, "--report")
    settings = Settings(
        data=data,
        folder=data_dir,
        models=tuple(model or Model),
        seed=seed,
        epochs=epochs,
        train_images=train_images,
        threads=threads,
        quick=quick,
    )
    with progress_bar(progress_console()) as progress:
        result = run(settings, progress)
    write_report(result, report)
    show(as_table(result["networks"]))
    for line in notes(result["networks"]):
        write(line)
    write(f"{result['seconds']:.0f} s; all figures in {report}")
    if not result["exact"]:
        raise typer.Exit(NOT_EXACT)
