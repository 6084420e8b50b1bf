"""`pcgraph convert`, and the progress of imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

import pcgraph  # noqa: E402
from pcgraph.cli.app import app  # noqa: E402
from tests.onnx.build import model  # noqa: E402
from tests.onnx.test_cli import saved  # noqa: E402


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_python_runs_on_its_own(tmp_path: Path) -> None:
    source = saved(tmp_path)
    result = convert(source, "-o", tmp_path / "made.py")
    assert result.exit_code == 0, result.output
    assert "made.py" in result.stderr and "made.pt" in result.stderr and result.stdout == ""
    script = (
        "import sys, torch, made; print(made.load()(torch.ones(2, 4)).tolist()); assert 'pcgraph' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pcgraph.from_onnx(source)(torch.ones(2, 4)).tolist()


def test_programs_keep_the_open_sizes_of_the_file(tmp_path: Path) -> None:
    source = saved(tmp_path)
    result = convert(source, "-o", tmp_path / "net.pt2")
    assert result.exit_code == 0, result.output
    assert "note:" not in result.stderr
    program = torch.export.load(tmp_path / "net.pt2").module()
    module = pcgraph.from_onnx(source)
    for rows in (1, 2, 7):
        x = torch.randn(rows, 4)
        assert torch.equal(program(x), module(x))


def test_sizes_that_cannot_stay_open_are_told(tmp_path: Path) -> None:
    text = "g (float[N, 4] x) => (float[2, 4] y) { y = Add(x, w) }"
    onnx.save(model(text, w=torch.randn(2, 4)), tmp_path / "net.onnx")
    result = convert(tmp_path / "net.onnx", "-o", tmp_path / "net.pt2")
    assert result.exit_code == 0, result.output
    assert "size 0 of x is 2 in the program" in result.stderr


def test_sizes_behind_the_first_need_an_input(tmp_path: Path) -> None:
    onnx.save(model("g (float[N, M] x) => (float[N, M] y) { y = Neg(x) }"), tmp_path / "net.onnx")
    target = tmp_path / "net.pt2"
    result = convert(tmp_path / "net.onnx", "-o", target)
    assert result.exit_code == 2 and "'x': 2x?, float32" in result.stderr and not target.exists()
    assert convert(tmp_path / "net.onnx", "-o", target, "--input", "3x5").exit_code == 0
    program = torch.export.load(target).module()
    assert torch.equal(program(torch.ones(6, 7)), -torch.ones(6, 7))


def test_what_torch_does_not_export_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) {
        s = ReduceSum<keepdims = 0>(x)
        zero = Constant<value = float {0}>()
        c = Greater(s, zero)
        y = If(c) <
            then_branch = t () => (float[N, 4] a) { a = Neg(x) },
            else_branch = e () => (float[N, 4] b) { b = Abs(x) }
        >
    }"""
    onnx.save(model(text), tmp_path / "net.onnx")
    result = convert(tmp_path / "net.onnx", "-o", tmp_path / "net.pt2")
    assert result.exit_code == 2 and "torch.export does not export" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_json_is_what_inspect_prints(tmp_path: Path) -> None:
    source = saved(tmp_path, batch="5")
    assert convert(source, "-o", tmp_path / "net.json").exit_code == 0
    printed = CliRunner().invoke(app, ["inspect", source, "--eval", "--format", "json"])
    found, expected = json.loads((tmp_path / "net.json").read_text()), json.loads(printed.stdout)
    for vertex in (*found["vertices"], *expected["vertices"]):
        del vertex["source"]  # torch numbers the files of generated code through one process
    assert found == expected and found["mode"] == "eval"


def test_models_of_python_become_programs_and_graphs_but_not_python(tmp_path: Path) -> None:
    for name in ("net.pt2", "net.json"):
        result = convert("torch.nn:Tanh", "-o", tmp_path / name, "--input", "2x3")
        assert result.exit_code == 0, result.output
    assert torch.export.load(tmp_path / "net.pt2").module()(torch.zeros(2, 3)).tolist() == torch.zeros(2, 3).tolist()
    result = convert("torch.nn:Tanh", "-o", tmp_path / "net.py")
    assert result.exit_code == 2 and "is Python already" in result.stderr


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("net.txt", "an ending that says nothing of its kind"),
        ("net", "an ending that says nothing of its kind"),
        ("none/net.py", "cannot be written to"),
        ("there.py", "is there already"),
        ("beside.py", "beside.pt is there already"),
    ],
)
def test_outputs_that_are_refused_before_the_work(tmp_path: Path, output: str, words: str) -> None:
    for name in ("there.py", "beside.pt"):
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.iterdir())
    result = convert("no.such:model", "-o", tmp_path / output)  # not even looked for
    assert result.exit_code == 2 and words in result.stderr
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "there.py").read_text() == "mine"


def test_force_overwrites_and_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    source = saved(tmp_path)
    (tmp_path / "made.py").write_text("mine")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff" * 9)
    assert convert(broken, "-o", tmp_path / "made.py", "--force").exit_code == 2
    assert (tmp_path / "made.py").read_text() == "mine" and not (tmp_path / "made.pt").exists()
    assert convert(source, "-o", tmp_path / "made.py", "--force").exit_code == 0
    assert "class Network" in (tmp_path / "made.py").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.onnx", "made.pt", "made.py", "net.onnx"]


def test_progress_is_told_stage_by_stage_and_not_too_often(tmp_path: Path) -> None:
    nodes = "\n".join(f"v{k + 1} = Neg(v{k})" for k in range(2000))
    proto = model(f"g (float[N] v0) => (float[N] v2000) {{ {nodes} }}")
    told: list[tuple[str, int, int]] = []
    pcgraph.from_onnx(proto, progress=lambda *what: told.append(what))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["reading", "checking", "inferring shapes", "importing nodes"]
    assert told[-1][2] == 2000 and len(told) < 200


def test_nothing_is_logged_and_sizes_of_minus_one_are_open(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proto = model("g (float[N, 4] x) => (float[N, 4] y) { y = Celu(x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    module = pcgraph.from_onnx(proto)
    assert module.provenance.inputs[0].shape == (None, 4)
    assert not caplog.records
