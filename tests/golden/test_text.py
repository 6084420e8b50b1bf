"""Golden text: the printed forms of graphs, schedules, programs, and the command line, to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import pcgraph
from pcgraph.cli.app import app

EXPECTED = Path(__file__).parent / "expected"


class Skip(nn.Module):
    """A residual block with a tuple-valued operation, a shared weight, a mask and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = torch.tanh(self.inner(x))
        h = self.inner(h) * (h > 0) + x
        left, right = h.chunk(2, 1)
        return {"class": self.head(left * left), "value": right.sum(1)}


class Norm(nn.Module):
    """Batch norm, dropout and an in-place activation: state that is written, random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).flatten(1))


def make_skip() -> nn.Module:
    torch.manual_seed(0)
    return Skip()


def make_norm() -> nn.Module:
    torch.manual_seed(0)
    return Norm()


def make_rnn() -> nn.Module:
    torch.manual_seed(0)
    return nn.RNN(3, 2)


INPUTS = {
    "skip": (make_skip, torch.ones(5, 4)),
    "norm": (make_norm, torch.ones(2, 1, 4, 4)),
    "rnn": (make_rnn, torch.ones(3, 1, 3)),
}


def check(name: str, text: str, request: pytest.FixtureRequest) -> None:
    path = EXPECTED / f"{name}.txt"
    if request.config.getoption("--regenerate"):
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text(), f"{path} differs; if that is meant, run pytest tests/golden --regenerate"


@pytest.mark.parametrize("model", INPUTS)
def test_graph(model: str, request: pytest.FixtureRequest) -> None:
    make, x = INPUTS[model]
    graph = pcgraph.compile(make(), example_inputs=(x,)).graph
    check(f"{model}-graph", str(graph), request)
    check(f"{model}-levelled", str(graph.levelled()), request)


@pytest.mark.parametrize("model", INPUTS)
def test_schedule(model: str, request: pytest.FixtureRequest) -> None:
    make, x = INPUTS[model]
    graph = pcgraph.compile(make(), example_inputs=(x,)).graph
    check(f"{model}-schedule-zil", str(pcgraph.schedule(graph, pcgraph.ZIL())), request)
    check(f"{model}-schedule-il", str(pcgraph.schedule(graph, pcgraph.IL(gamma=0.1, steps=4))), request)


@pytest.mark.parametrize("model", INPUTS)
def test_programs(model: str, request: pytest.FixtureRequest) -> None:
    import re

    make, x = INPUTS[model]
    sources = pcgraph.compile(make(), example_inputs=(x,)).sources
    text = sources["predict"] + "\n" + sources["learn"]
    numbers: dict[str, str] = {}  # constants are numbered by the process: number them by appearance
    text = re.sub(r"\bk\d+\b", lambda m: numbers.setdefault(m[0], f"k{len(numbers)}"), text)
    check(f"{model}-programs", text.rstrip(), request)


@pytest.mark.parametrize(
    "options",
    [[], ["--levels"], ["--schedule"], ["--format", "json"], ["--format", "dot"], ["--value-nodes", "layers"]],
)
def test_inspect(options: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    target = "tests.golden.test_text:make_skip"
    result = CliRunner().invoke(app, ["inspect", target, "--input", "5x4", *options])
    assert result.exit_code == 0, result.output
    name = "-".join(["inspect", *(o.strip("-") for o in options)])
    check(name, result.stdout.rstrip().replace(str(Path(__file__).parent), "HERE"), request)
