"""Imported once by the server that forks for every file, so that no file pays for what torch's exporter loads."""

import contextlib
import io
import os
import tempfile
import warnings
from pathlib import Path


def warm() -> None:
    """Import the judge, and export something."""
    import torch

    import tests.onnx_zoo.judge_export  # noqa: F401

    torch.set_num_threads(1)
    layer, name = torch.nn.Linear(2, 2), "warm.onnx"
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (torch.randn(2, 2),), Path(folder) / name, dynamo=True, verbose=False)


if os.environ.get("PCGRAPH_ONNX_ZOO"):  # set by `python -m tests.onnx_zoo`, whose server can only import
    warm()
