"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import pcgraph
from pcgraph.cli import main
from pcgraph.cli.app import app
from pcgraph.cli.inputs import InputSpec, parse, random_inputs

ROOT = Path(__file__).resolve().parents[2]

NETS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Skip(nn.Module):
    """A convolution whose result is used again two layers later."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        first = self.conv(x)
        y = torch.relu(self.bn(first)) + first
        return self.fc(y.mean((2, 3)))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 4)
        self.head = nn.Linear(4, 16, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.table(ids)))


def make():
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def wide(width):
    return nn.Linear(width, width)


def failing():
    raise ValueError("no such luck")


def nothing():
    return None


class Holder:
    model = make()


instance = make()
number = 3
'''


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of models in the current folder; forgotten after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "cli_nets", raising=False)
    (tmp_path / "cli_nets.py").write_text(NETS)
    (tmp_path / "cli_broken.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    yield "cli_nets"
    sys.modules.pop("cli_nets", None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="pcgraph")


# -- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("8x3x32x32", InputSpec((8, 3, 32, 32))),
        ("7", InputSpec((7,))),
        ("2x3:float64", InputSpec((2, 3), "float64")),
        ("2x3:bfloat16", InputSpec((2, 3), "bfloat16")),
        ("2:bool", InputSpec((2,), "bool")),
        ("8x64:int64<256", InputSpec((8, 64), "int64", 256)),
        ("8x64<256", InputSpec((8, 64), "int64", 256)),
        ("4:uint8<256", InputSpec((4,), "uint8", 256)),
    ],
)
def test_shape_texts(text: str, spec: InputSpec) -> None:
    assert parse(text) == spec
    assert parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a shape"),
        ("8x", "is not a shape"),
        ("x8", "is not a shape"),
        ("8,3", "is not a shape"),
        ("-1x3", "is not a shape"),
        ("8x3:", "is not a shape"),
        ("8x3:int64<", "is not a shape"),
        ("8x0", "has a size of 0"),
        ("8x3:float31", "unknown dtype 'float31'"),
        ("8x3:int64", "integers need a bound"),
        ("8x3:int8<129", "between 1 and 128"),
        ("8x3:int64<0", "between 1 and"),
        ("8x3:float32<5", "only integers have a bound"),
    ],
)
def test_shape_texts_that_are_none(text: str, complaint: str, nets: str) -> None:
    result = run("inspect", f"{nets}:make", f"--input={text}")
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""


def test_random_inputs_follow_spec_and_seed() -> None:
    specs = [parse("5x4"), parse("1000:int16<3"), parse("1000:uint8<256"), parse("200:bool"), parse("3:complex64")]
    first, again, other = random_inputs(specs, 1), random_inputs(specs, 1), random_inputs(specs, 2)
    assert [(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in first] == [(s.shape, s.dtype) for s in specs]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert first[1].unique().tolist() == [0, 1, 2]
    assert first[2].max() > 127
    assert first[3].unique().tolist() == [False, True]


def test_largest_bound_of_int64() -> None:
    (values,) = random_inputs([parse(f"100:int64<{2**63 - 1}")], 0)
    assert values.min() >= 0


# -- models that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("cli_nets", "no module and name with a colon between"),
        (":make", "no module and name with a colon between"),
        ("cli_nets:", "no module and name with a colon between"),
        ("no_such_module:make", "there is no module 'no_such_module'"),
        ("cli_nets.sub:make", "there is no module 'cli_nets.sub'"),
        ("cli_broken:make", "importing cli_broken failed: ModuleNotFoundError: No module named 'no_such_library'"),
        ("cli_nets:mak", "cli_nets has no attribute 'mak'\n  do:     did you mean make?"),
        ("cli_nets:Holder.modem", "has no attribute 'modem'\n  do:     did you mean model?"),
        ("cli_nets:number", "is of type int, neither an nn.Module nor something that makes one"),
        ("cli_nets:nothing", "returned something of type NoneType, not an nn.Module"),
        ("cli_nets:wide", "needs arguments: width"),
        ("cli_nets:failing", "calling cli_nets:failing() failed: ValueError: no such luck"),
    ],
)
def test_targets_that_are_no_models(command: str, target: str, complaint: str, nets: str) -> None:
    result = run(command, target, "--input", "2x4")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("inputs", [["2x5"], ["2x4", "2x4"], ["2x4:int64<9"]])
def test_inputs_that_forward_refuses(command: str, inputs: list[str], nets: str) -> None:
    result = run(command, f"{nets}:make", *(f"--input={text}" for text in inputs))
    assert result.exit_code == 2
    assert "Sequential.forward fails on --input 2x" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect"],
        ["inspect", "cli_nets:make"],
        ["inspect", "cli_nets:make", "--input", "2x4", "--format", "svg"],
        ["inspect", "cli_nets:make", "--input", "2x4", "--format", "dot", "--schedule"],
        ["verify", "cli_nets:make", "--input", "2x4", "--format", "dot"],
        ["demo", "--model", "transformer"],
        ["demo", "--epochs", "0"],
        ["no-such-command"],
        ["--no-such-option"],
    ],
)
def test_usage_errors(arguments: list[str], nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: pcgraph" in err


# -- inspect -----------------------------------------------------------------------------------------------------


def test_inspect_json_is_the_graph(nets: str) -> None:
    result = run("inspect", f"{nets}:Skip", "--input", "2x3x6x6", "--format", "json", "--levels", "--schedule")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    import cli_nets

    network = pcgraph.compile(cli_nets.Skip(), example_inputs=(torch.randn(2, 3, 6, 6),))
    graph = network.graph
    assert document["model"] == "cli_nets:Skip"
    assert document["mode"] == "train"
    assert document["inputs"] == ["2x3x6x6:float32"]
    elements = sum(p.numel() for p in cli_nets.Skip().parameters())
    assert document["summary"] == {**graph.summary(), "parameter_elements": elements}
    listed = {vertex["name"]: vertex for vertex in document["vertices"]}
    assert list(listed) == [n for n, v in graph.vertices.items() if v.role.value in ("input", "operation")]
    for name, vertex in listed.items():
        assert vertex["depth"] == graph.depth.get(name)
        assert vertex["relays"] == graph.relays(name)
        assert vertex["outputs"][0]["shape"] == list(graph[name].outputs[0].shape)
    uses = {
        (p["path"], use["vertex"], use["operand"]): use["update_time"]
        for p in document["parameters"]
        for use in p["uses"]
    }
    assert uses == {(graph[u.parameter].module_path, u.child, u.operand): u.update_time for u in graph.parameter_uses}
    convolution = next(v for v in document["vertices"] if "conv.weight" in v["parameters"])
    assert convolution["parameters"] == ["conv.weight", "conv.bias"]
    assert convolution["update_time"] == convolution["depth"] == graph.steps
    assert convolution["relays"] > 0
    assert [level["depth"] for level in document["levels"] if level["depth"] is not None] == list(
        range(graph.steps, -1, -1)
    )
    assert sorted(name for level in document["levels"] for name in level["vertices"]) == sorted(listed)
    assert document["schedule"] == str(network.schedule).splitlines()


def test_inspect_table(nets: str) -> None:
    result = run("inspect", f"{nets}:Skip", "--input", "2x3x6x6")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    header = next(line for line in lines if line.strip().startswith("name"))
    assert header.split("  ")[0].strip() == "name"
    for column in ("operation", "module path", "shape", "parameters", "depth", "update time", "relays"):
        assert column in header
    (row,) = [line.split() for line in lines if "f32[2,4,6,6]*" in line and "weight, bias" in line and " conv " in line]
    name = row[0]
    graph = pcgraph.compile(sys.modules["cli_nets"].Skip(), example_inputs=(torch.randn(2, 3, 6, 6),)).graph
    assert row[-3:] == [str(graph.depth[name]), str(graph.depth[name]), str(graph.relays(name))]
    summary = [line.split() for line in lines]
    assert ["parameters", "6", "(130", "elements)"] in summary
    assert ["inference", "steps", "T", str(graph.steps)] in summary
    assert not any(line.startswith("opaque %") for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_inspect_table_by_level_and_schedule(nets: str) -> None:
    result = run("inspect", f"{nets}:make", "--input", "2x4", "--levels", "--schedule")
    assert result.exit_code == 0, result.stderr
    network = pcgraph.compile(sys.modules["cli_nets"].make(), example_inputs=(torch.randn(2, 4),))
    assert result.stdout.rstrip("\n").endswith(str(network.schedule).rstrip("\n"))
    names = [vertex.name for vertex in network.graph.vertices.values() if vertex.role.value == "operation"]
    rows = [line.split() for line in result.stdout.splitlines() if line.split() and line.split()[0] in names]
    assert [row[0] for row in rows[: len(names)]] == names  # a chain runs from the deepest level to the output
    assert [int(row[-3]) for row in rows[: len(names)]] == list(range(network.graph.steps, -1, -1))


def test_inspect_dot(nets: str) -> None:
    result = run("inspect", f"{nets}:Skip", "--input", "2x3x6x6", "--format", "dot", "--levels")
    assert result.exit_code == 0, result.stderr
    graph = pcgraph.compile(sys.modules["cli_nets"].Skip(), example_inputs=(torch.randn(2, 3, 6, 6),)).graph
    lines = result.stdout.strip().splitlines()
    assert lines[0].startswith("digraph ") and lines[-1] == "}"
    shown = [v for v in graph.vertices.values() if v.role.value in ("input", "operation")]
    assert [line for line in lines if "[label=" in line and " -> " not in line] != []
    for vertex in shown:
        assert sum(line.startswith(f'  "{vertex.name}" [') for line in lines) == 1
    edges = sum(ref.vertex in {v.name for v in shown} for v in shown for ref in v.operands)
    assert sum(" -> " in line for line in lines) == edges
    assert sum("peripheries=2" in line for line in lines) == 1
    assert any('relays"' in line for line in lines)
    assert sum("rank=same" in line for line in lines) == graph.steps + 1


def test_integer_inputs_and_tied_weights(nets: str) -> None:
    result = run("inspect", f"{nets}:Tokens", "--input", "3x5:int64<16", "--format", "json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    (table,) = document["parameters"]
    assert (table["path"], table["elements"], len(table["uses"])) == ("table.weight", 64, 2)
    assert document["summary"]["parameter_elements"] == 64
    assert document["vertices"][0]["outputs"] == [{"shape": [3, 5], "dtype": "int64"}]


@pytest.mark.parametrize("target", ["instance", "make", "Holder.model"])
def test_instance_function_and_dotted_name(target: str, nets: str) -> None:
    result = run("inspect", f"{nets}:{target}", "--input", "2x4", "--format", "json", "--eval")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["mode"] == "eval"
    assert document["summary"]["parameters"] == 4


# -- verify ------------------------------------------------------------------------------------------------------


def test_verify_is_exact(nets: str) -> None:
    result = run("verify", f"{nets}:Skip", "--input", "2x3x6x6")
    assert result.exit_code == 0, result.stderr
    assert "conv.weight" in result.stdout


def test_verify_json(nets: str) -> None:
    result = run("verify", f"{nets}:Skip", "--input", "2x3x6x6", "--format", "json", "--eval")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["exact"] is True


def test_verify_exits_with_1_if_not_exact(nets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Inexact:
        exact = False

        def __str__(self) -> str:
            return "one bit differs"

    monkeypatch.setattr(pcgraph, "verify", lambda model, inputs, backend: Inexact())
    result = run("verify", f"{nets}:make", "--input", "2x4")
    assert result.exit_code == 1
    assert result.stdout == "one bit differs\n"


# -- errors and exit codes ---------------------------------------------------------------------------------------


def test_unforeseen_error_is_one_message(nets: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(pcgraph, "compile", broken)
    result = run("inspect", f"{nets}:make", "--input", "2x4")
    assert result.exit_code == 3
    assert result.stderr == "error: KeyError: 'lost'\n  do:     run again with --debug to see where\n"


@pytest.mark.parametrize("place", ["before", "behind"])
def test_debug_shows_the_traceback(place: str, nets: str) -> None:
    command = ["inspect", f"{nets}:failing", "--input", "2x4"]
    result = run(*(["--debug", *command] if place == "before" else [*command, "--debug"]))
    assert result.exit_code == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert "no such luck" in result.stderr


def test_main_returns_exit_codes(nets: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "inspect" in capsys.readouterr().out
    assert main(["inspect", f"{nets}:make", "--input", "2x4"]) == 0
    assert main(["inspect", f"{nets}:make", "--input", "2y4"]) == 2


def test_a_reader_that_goes_away_is_no_error(nets: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m pcgraph.cli inspect {nets}:make --input 2x4 --format json; echo $? > code"
    done = subprocess.run(
        f"({command}) | true",
        shell=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert (tmp_path / "code").read_text() == "141\n"


def test_as_a_process(nets: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pcgraph.cli", "inspect", f"{nets}:make", "--input", "2x4", "--format", "json"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["parameter_elements"] == 4 * 3 + 3 + 3 * 2 + 2
    assert done.stderr == ""


# -- demo --------------------------------------------------------------------------------------------------------


def test_quick_demo(tmp_path: Path) -> None:
    target = tmp_path / "figures.json"
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        result = run("demo", "--quick", "--report", str(target))
        assert torch.get_num_threads() == 2  # given back after the demo's own
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.stderr
    report = json.loads(target.read_text())
    assert report["exact"] is True
    assert [one["model"] for one in report["networks"]] == ["conv", "residual", "lstm"]
    for one in report["networks"]:
        assert one["steps"] == 4
        assert one["largest_weight_difference"] == one["largest_buffer_difference"] == 0
        assert one["same_random_state"] is True
        assert one["accuracy"]["backprop"] == one["accuracy"]["z-il"]
        assert one["inference_steps_T"] > 0
        assert one["step_time_ratio"] > 0
    assert 0 < report["networks"][2]["fused_kernel"]["largest_weight_difference"] < 0.1
    assert report["settings"] == {
        "data": "digits",
        "train_images": 1437,
        "held_back_images": 360,
        "image_side": 8,
        "seed": 0,
        "batch": 32,
        "quick": True,
    }
    assert report["machine"]["torch_threads"] == 1
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["pcgraph"] == pcgraph.__version__
    for title in ("AlexNet-like", "residual", "LSTM"):
        (row,) = [line.split() for line in result.stdout.splitlines() if line.strip().startswith(title + " ")]
        assert row[5:7] == ["0", "0"]


def test_demo_exits_with_1_if_weights_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcgraph.demo.train import Learner

    step = Learner.step

    def faulty(self: Learner, x: torch.Tensor, y: torch.Tensor) -> None:
        step(self, x, y)
        if self.name == "z-il":
            next(self.model.parameters()).data.view(-1)[0] += 1e-6

    monkeypatch.setattr(Learner, "step", faulty)
    target = tmp_path / "figures.json"
    result = run("demo", "--quick", "--model", "conv", "--report", str(target))
    assert result.exit_code == 1
    assert "NOT EXACT" in result.stdout
    report = json.loads(target.read_text())
    assert report["exact"] is False
    assert report["networks"][0]["largest_weight_difference"] > 0


def test_demo_without_its_data_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("demo", "--data", "fashion-mnist", "--data-dir", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "apt-get install dataset-fashion-mnist" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_demo_checks_the_report_file_first(tmp_path: Path) -> None:
    result = run("demo", "--report", str(tmp_path / "no" / "such" / "folder.json"))
    assert result.exit_code == 2
    assert "the report cannot be written" in result.stderr
