"""``pcgraph convert``: a model as Python source, as a program of torch.export, or its graph as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PCGraphError
from .files import check_writable, replacing
from .inspect import document
from .options import Debug, Inputs, Model, Seed, Train
from .prepare import blaming_forward, prepare
from .target import load_model
from .terminal import loading, say, status

if TYPE_CHECKING:
    from torch import nn

    from ..onnx.module import OnnxModule

_KINDS = {
    ".py": "Python source, of an ONNX file, with its weights in a .pt beside it",
    ".pt2": "a program of torch.export, weights included",
    ".json": "the graph, as pcgraph inspect --format json prints it",
}
_BATCH = 2  # example of a size that stays open: torch.export takes 0 and 1 for sizes that are meant


def convert(
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="NAME.py, NAME.pt2 or NAME.json.", show_default=False)
    ],
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    train: Train = False,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite what is there.")] = False,
    debug: Debug = False,
) -> None:
    """Write a model as Python source (.py, of an ONNX file), as a program of torch.export (.pt2), or its graph (.json).

    A .py needs no --input. In a .pt2, sizes that an ONNX file leaves open stay open.
    """
    files = _files(output, force)
    if output.suffix == ".py":
        _as_source(model, *files)
    elif output.suffix == ".pt2":
        _as_program(model, inputs, train, seed, output)
    else:
        text = json.dumps(document(model, inputs, train, seed), indent=2)
        with replacing(output) as [path]:
            path.write_text(f"{text}\n")
    say(f"wrote {' and '.join(map(str, files))}")


def _files(output: Path, force: bool) -> list[Path]:
    """The files to be written, after all questions that can be asked beforehand."""
    if output.suffix not in _KINDS:
        kinds = "; ".join(f"{suffix}: {about}" for suffix, about in _KINDS.items())
        raise PCGraphError(f"{output} has an ending that says nothing of its kind", hint=f"-o takes {kinds}")
    files = [output, *([output.with_suffix(".pt")] if output.suffix == ".py" else [])]
    for path in files:
        check_writable(path, "-o", "the model")
        if path.exists() and not force:
            raise PCGraphError(f"{path} is there already", hint="--force overwrites it")
    return files


def _as_source(target: str, source: Path, weights: Path) -> None:
    import torch

    from .. import __version__
    from ..onnx.source import python_source

    module = _imported(target)
    try:
        text = python_source(module, __version__)
    except ValueError as error:
        raise PCGraphError(
            f"{target} cannot be written as Python: {error}", hint="pcgraph.from_onnx gives the module itself"
        ) from error
    with status(f"writing {source}"), replacing(weights, source) as [beside, path]:
        torch.save(module.state_dict(), beside)
        path.write_text(text, encoding="ascii")


def _imported(target: str) -> OnnxModule:
    from ..onnx.module import OnnxModule

    with loading(target) as tell:
        module = load_model(target, tell)
    if not isinstance(module, OnnxModule):
        raise PCGraphError(f"{target} is Python already", hint="ONNX files can be written as .py; .pt2 takes any model")
    return module


def _as_program(target: str, shapes: list[str], train: bool, seed: int, output: Path) -> None:
    import torch

    prepared = prepare(target, shapes, train=train, seed=seed, batch=_BATCH)
    wanted = _open_sizes(prepared.model)
    dynamic = None if wanted is None else tuple(dict.fromkeys(sizes, torch.export.Dim.AUTO) for sizes in wanted)
    with status(f"exporting {target}"), blaming_forward(prepared):
        try:
            program = torch.export.export(prepared.model, prepared.inputs, dynamic_shapes=dynamic)
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise PCGraphError(
                f"torch.export does not export {target}: {lines[0]}", hint="--debug shows all that it says"
            ) from error
    with replacing(output) as [path]:
        torch.export.save(program, path)
    for name, size, dim in _closed(program, wanted or ()):
        say(f"note: size {dim} of {name} is {size} in the program, since torch.export could not keep it open")


def _open_sizes(model: nn.Module) -> tuple[tuple[int, ...], ...] | None:
    """Of each input the dimensions that the file leaves open; None of a model from elsewhere."""
    from ..onnx.module import OnnxModule

    if not isinstance(model, OnnxModule):
        return None
    return tuple(
        tuple(i for i, size in enumerate(known.shape or ()) if size is None) for known in model.provenance.inputs
    )


def _closed(program: object, wanted: tuple[tuple[int, ...], ...]) -> list[tuple[str, str, int]]:
    """Sizes that the program fixes and the file does not: name of the input, size, dimension."""
    import torch
    from torch.export.graph_signature import InputKind

    assert isinstance(program, torch.export.ExportedProgram)
    given = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    found = []
    for spec, sizes in zip(specs, wanted, strict=False):
        value = given[spec.arg.name]
        texts = map(str, value.shape)  # a size that is known may still be a torch.SymInt
        found += [(spec.arg.name, text, i) for i, text in enumerate(texts) if i in sizes and text.isdigit()]
    return found
