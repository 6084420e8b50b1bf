"""Imported once by the server that forks for every file, so that no file pays for what torch's exporter loads."""

import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import torch

import tests.onnx_zoo.judge_export  # noqa: F401

torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.onnx.export(
        torch.nn.Linear(2, 2), (torch.randn(2, 2),), Path(folder) / "warm.onnx", dynamo=True, verbose=False
    )
