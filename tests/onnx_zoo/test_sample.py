"""A few small files, written here by torch: they pass, and the judge that says so can say no."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pcgraph
from tests.onnx_zoo.row import Row, Status

for package in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

from tests.onnx_zoo import judge_export, table  # noqa: E402
from tests.onnx_zoo.exports import exports  # noqa: E402

SAMPLE = ("mlp.ts11", "gru.ts17", "unet.ts23", "unet.ts23.train", "encoder.ts17")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", SAMPLE)
def test_passes(name: str, tmp_path: Path) -> None:
    row = judge_export.judge(exports()[name], tmp_path)
    assert row.status is Status.PASSED, f"{row.message}\n{row.traceback}"
    assert row.compared >= row.imported[0] > 0
    assert row.moving > 0.9, "most gradients are zero, so that little was compared"
    if name.startswith("unet"):
        assert bool(row.fused) != name.endswith(".train"), "in evaluation mode the exporter fuses batch norms"


def test_newer_exporter(tmp_path: Path) -> None:
    row = judge_export.judge(exports()["mlp.dynamo23"], tmp_path)
    assert row.status is Status.PASSED, f"{row.message}\n{row.traceback}"
    assert row.opsets == {"ai.onnx": 23}


def _moved(module: nn.Module) -> None:
    """Every parameter a little off."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 1e-3


def _frozen(module: nn.Module) -> None:
    """One parameter does not learn."""
    next(module.parameters()).requires_grad_(False)


def _doubled(module: nn.Module) -> None:
    """Gradients twice too large, the values as they were. (A judge's copies lose hooks on parameters.)"""
    module.get_submodule("0").register_forward_hook(lambda _, __, output: 2 * output - output.detach())


def _grown(module: nn.Module) -> None:
    """One parameter more than the model has."""
    module.register_parameter("more", nn.Parameter(torch.randn(5)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_moved, ("forward at batch 3", "provenance: ", "no parameter of the model")),
        (_frozen, ("in the file, but not trained: 0.weight",)),
        (_doubled, ("gradient of 0.weight: 1.0e+00",)),
        (_grown, ("more has no origin", "no parameter of the model: more [5]")),
    ],
)
def test_judge_objects(
    spoil: Callable[[nn.Module], None], words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = pcgraph.from_onnx

    def spoiled(source: Any, **options: Any) -> nn.Module:
        module = honest(source, **options)
        spoil(module)
        return module

    monkeypatch.setattr(pcgraph, "from_onnx", spoiled)
    row = judge_export.judge(exports()["mlp.ts11"], tmp_path)
    assert row.status is Status.WRONG
    for text in words:
        assert text in row.message


def test_judge_objects_to_the_file(tmp_path: Path) -> None:
    """A file that holds another network is no file to judge an importer by."""
    judge_export.judge(exports()["mlp.ts13"], tmp_path)
    (tmp_path / "mlp.ts13.onnx").rename(tmp_path / "mlp.ts11.onnx")
    other = exports()["mlp.ts11"]
    assert judge_export.judge(other, tmp_path).status is Status.PASSED
    (tmp_path / "mlp.ts11.onnx").rename(tmp_path / "gru.ts17.onnx")
    assert judge_export.judge(exports()["gru.ts17"], tmp_path).status is Status.UNFIT


def test_table() -> None:
    rows = [
        Row("exports", "good", Status.PASSED, importing=0.5, nodes=4, forward={"batch 3": 1e-7}, fused=["norm.bias"]),
        Row("packages", "absent", Status.NOT_RUN, "file not available", origin="thing==1.0, thing/net.onnx"),
        Row("packages", "bad", Status.WRONG, "forward at batch 1: 2.0e+00 from onnxruntime", importing=0.1),
    ]
    page = table.render(rows)
    assert "| good | passes |" in page
    assert "* good: fused 1: norm.bias" in page
    assert "| absent | not run | thing==1.0, thing/net.onnx |" not in page  # the sources are a table of their own
    assert "| absent | thing==1.0, thing/net.onnx |" in page
    assert "* bad, WRONG: forward at batch 1: 2.0e+00 from onnxruntime" in page
