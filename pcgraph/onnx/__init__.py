"""ONNX files as trainable modules. Needs the extra: ``pip install 'pcgraph[onnx]'``.

Imported by `pcgraph` itself, so that nothing here may import `onnx` before a file is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import OnnxImportError
from .limits import Limits

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from .job import Quantized
    from .module import OnnxModule
    from .roles import Trainable
    from .untie import Untie

__all__ = ["Limits", "from_onnx", "to_onnx"]


def from_onnx(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
    *,
    trainable: Trainable = "auto",
    untie: Untie = "auto",
    quantized: Quantized = "refuse",
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
    limits: Limits | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> OnnxModule:
    """Import an ONNX file as an `nn.Module` whose float weights are parameters.

    The module is a `torch.fx.GraphModule`: real `torch.nn` modules where the file has weights, plain functions
    elsewhere, names from the file. It comes in ``eval()``, in which it computes what the file computes; ``train()``
    makes batch norms and dropouts of the file learn. Open dimensions stay open.

    Args:
        source: path, bytes, or an `onnx.ModelProto`, which is not changed.
        trainable: "auto" takes matrices, kernels, biases, scales and tables for parameters, but not statistics, bounds,
            masks and scalars, which become buffers; "all" takes every float that a gradient can reach; "none"
            freezes everything; a function decides for each `pcgraph.onnx.roles.Candidate`.
        untie: "auto" gives every use of a tensor of equal elements a copy of its own, since exporters merge equal
            tensors; "all" does so for every tensor, "none" for no one.
        quantized: "refuse" a quantised file, or "dequantize" its weights to floats.
        input_shapes: sizes that inputs will have, by name, None where one stays open. Shape computations become
            constants.
        limits: bounds on what the file may cost.
        progress: is told the stage, and how many of how many nodes are done (0 of 0 where nothing is counted), at every
            stage and then at most ten times a second.

    Raises:
        OnnxImportError: the extra is missing, or the file cannot be imported; it names node, operator and file.
    """
    try:
        from .convert import convert
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("onnx", "onnx_ir"):
            raise
        raise _missing() from error
    for name in ("onnx", "onnx_ir"):
        _require(name)
    return convert(source, trainable, untie, quantized, input_shapes, limits or Limits(), progress)


def to_onnx(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the weights of an imported model back into its ONNX file, as a new file.

    The graph, its names and everything that was not trained stay as they are; weights are put back into the layout of
    the file. A tensor that was merged with others, and copied at import, gets an initializer of its own if the copies
    differ by now. Layers that the exporter fused stay fused.

    Args:
        model: from `from_onnx`, or a network that was compiled of such a model.
        path: the file to write; one that is there is replaced when the new one is whole.

    Raises:
        OnnxExportError: the folder does not exist, the model does not come from a file, the file is gone, or a
            parameter has no place in it.
    """
    for name in ("onnx", "onnx_ir"):
        _require(name)
    from .export import export

    export(model, path)


def _require(name: str) -> None:
    import importlib

    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _missing() from error


def _missing() -> OnnxImportError:
    return OnnxImportError("reading ONNX files needs the packages onnx and onnx_ir", hint="pip install 'pcgraph[onnx]'")
