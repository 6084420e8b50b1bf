"""ONNX files on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

from pcgraph.cli.app import app  # noqa: E402
from tests.onnx.build import model  # noqa: E402


def saved(folder: Path, batch: str = "N") -> str:
    text = f"g (float[{batch}, 4] x) => (float[{batch}, 3] y) {{ a = MatMul(x, w) y = Relu(a) }}"
    path = folder / "net.onnx"
    onnx.save(model(text, w=torch.randn(4, 3)), path)
    return str(path)


def test_inspect_shows_the_names_of_the_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", saved(tmp_path), "--input", "2x4", "--format", "json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["inputs"] == ["2x4:float32"]
    assert any("matmul.weight" in str(vertex) for vertex in document["vertices"])


def test_shapes_come_from_the_file_where_it_fixes_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", saved(tmp_path, batch="5"), "--format", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["exact"]


def test_open_shapes_need_an_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["verify", saved(tmp_path)])
    assert result.exit_code == 2 and "'x': ?x4, float32" in result.stderr


@pytest.mark.parametrize(("name", "words"), [("missing.onnx", "no such file"), ("broken.onnx", "not an ONNX model")])
def test_files_that_are_none(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 9)
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / name), "--input", "2x4"])
    assert result.exit_code == 2 and words in result.stderr


def test_bench_takes_the_shapes_of_the_file(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    options = ["--only", "pcgraph", "--rounds", "2", "--seconds", "0", "--json", str(report)]
    result = CliRunner().invoke(app, ["bench", saved(tmp_path, batch="5"), *options])
    assert result.exit_code == 0, result.output
    [found] = json.loads(report.read_text())["results"]
    assert found["contenders"]["pcgraph"]["seconds"]["wall"]["median"] > 0
    result = CliRunner().invoke(app, ["bench", saved(tmp_path), *options])
    assert result.exit_code == 2 and "'x': ?x4, float32" in result.stderr and "one --input for each" in result.stderr


def test_scalars_are_inputs_too(tmp_path: Path) -> None:
    onnx.save(model("g (float[2, 4] x, float s) => (float[2, 4] y) { y = Mul(x, s) }"), tmp_path / "net.onnx")
    for more in ((), ("--input", "2x4", "--input", "scalar")):
        result = CliRunner().invoke(app, ["inspect", str(tmp_path / "net.onnx"), "--format", "json", *more])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["inputs"] == ["2x4:float32", "scalar:float32"]


def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    """And brackets in a name are no markup."""
    path = tmp_path / "[" / "red]net[1].onnx"
    path.parent.mkdir()
    Path(saved(tmp_path, batch="5")).rename(path)
    shown = CliRunner(env={"FORCE_COLOR": "1"}).invoke(app, ["verify", str(path)])
    assert shown.exit_code == 0 and "red]net[1].onnx:importingnodes" in "".join(shown.stderr.split())
    silent = CliRunner().invoke(app, ["verify", str(path)])
    assert silent.exit_code == 0 and silent.stderr == ""
