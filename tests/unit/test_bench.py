"""The benchmark: what is checked before it is timed, what becomes of the times, and what is left out."""

from __future__ import annotations

import io
import json
import re
import time
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn
from typer.testing import CliRunner, Result

import pcgraph
from pcgraph.bench import plot, run, worker
from pcgraph.bench.check import CLOSE, NotRun, Seen, bitwise, close, cosine, distance, see
from pcgraph.bench.clock import clock
from pcgraph.bench.contenders import Makers
from pcgraph.bench.figures import Collected, control, figures, finite
from pcgraph.bench.models import Workload, built_in, cross_entropy, labels, own
from pcgraph.bench.names import AGAIN, BASE, CONTENDERS, MODELS
from pcgraph.bench.nets import Experts
from pcgraph.bench.report import as_json, as_markdown, exact, heading, notes, rows, table, write_between
from pcgraph.bench.worker import Task, work
from pcgraph.cli.app import app
from pcgraph.errors import PCGraphError
from pcgraph.measure import race


def small(lr: float | None = None) -> Workload:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
    return Workload(nn.Sequential(*layers), (torch.randn(8, 6),), labels(8, classes=3), cross_entropy, lr)


def told(task: Task) -> Collected:
    """What a task says, collected in this process."""
    found = Collected()
    work(task, lambda message: run._note(message, found))
    return found


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments], prog_name="pcgraph")


# -- the race ----------------------------------------------------------------------------------------------------


def test_every_round_runs_everybody_once_in_a_new_order() -> None:
    ran: list[str] = []
    steps = {name: partial(ran.append, name) for name in "abcdef"}
    taken = list(race(steps, 40, lambda step: step() or 1.0, seed=3))
    assert all(sorted(one) == list("abcdef") for one in taken)
    orders = {tuple(ran[6 * k : 6 * k + 6]) for k in range(40)}
    assert len(orders) > 30
    assert {order[0] for order in orders} == set("abcdef")


def test_slow_steps_take_part_in_every_kth_round() -> None:
    taken = list(race({"fast": int, "slow": int}, 7, lambda step: step(), every={"slow": 3}))
    assert ["slow" in one for one in taken] == [True, False, False, True, False, False, True]
    assert all("fast" in one for one in taken)


def test_the_clock_of_the_processor() -> None:
    taken = clock(torch.device("cpu"))(lambda: time.sleep(0.02))
    assert taken["wall"] >= 0.02 > taken["cpu"]


def test_clocks_of_accelerators_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in; the real ones run where there is a device."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("event")

        def elapsed_time(self, end: Any) -> float:
            return 250.0

    place = types.SimpleNamespace(Event=Event, synchronize=lambda: done.append("wait"))
    monkeypatch.setattr(torch, "mps", place)
    taken = clock(types.SimpleNamespace(type="mps"))(lambda: done.append("step"))
    assert done == ["wait", "event", "step", "event", "wait"]
    assert taken["device"] == 0.25 and taken["wall"] >= 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_contenders_on_a_gpu() -> None:
    found = told(Task(small, (*QUICK, "inductor"), device="cuda", rounds=2, seconds=0, il_steps=5))
    assert found.failed == "" and {"pcgraph", "pcgraph step", "simulation"} <= found.ready.keys()
    assert all(one[BASE]["device"] > 0 for one in found.rounds)


# -- checks ------------------------------------------------------------------------------------------------------


def test_seeing_a_step_leaves_the_model_as_it_was() -> None:
    task = small()
    before = {name: t.clone() for name, t in task.model.state_dict().items()}
    learn = Makers(task, draws=False, il_steps=1, limit=9, seed=0).make(BASE).learn
    one, two = see(task, learn, 1), see(task, learn, 1)
    assert bitwise(one, two)["kind"] == "bitwise"
    assert not torch.equal(one.buffers["1.running_mean"], before["1.running_mean"])
    assert all(torch.equal(t, before[name]) for name, t in task.model.state_dict().items())
    assert all(p.grad is None for p in task.model.parameters())


@pytest.mark.parametrize("where", ["gradients", "buffers", "loss"])
def test_one_bit_is_not_exact(where: str) -> None:
    task = small()
    learn = Makers(task, draws=False, il_steps=1, limit=9, seed=0).make(BASE).learn
    wanted, found = see(task, learn, 1), see(task, learn, 1)
    tensor = found.loss if where == "loss" else next(iter(getattr(found, where).values()))
    tensor.view(-1)[0:1].copy_(torch.nextafter(tensor.view(-1)[0:1], torch.tensor([torch.inf])))
    with pytest.raises(NotRun, match="not exact"):
        bitwise(found, wanted)


def seen(*gradients: torch.Tensor | None) -> Seen:
    named = {str(k): g for k, g in enumerate(gradients)}
    return Seen(torch.ones(()), {}, named, {}, torch.zeros(1))


def test_wrong_gradients_are_told_from_rounding() -> None:
    weight, bias = torch.randn(50, 50), 1e-9 * torch.randn(50)  # in front of a batch norm: nothing but rounding
    noise = 1e-9 * torch.randn(50)
    assert close(seen(weight + 1e-5, noise), seen(weight, bias), CLOSE, "close")["distance"] < 1e-4
    wrong = (seen(torch.zeros(50, 50), bias), seen(weight, None), seen(weight * torch.nan, bias), seen(-weight, bias))
    for one in wrong:
        with pytest.raises(NotRun, match="wrong"):
            close(one, seen(weight, bias), CLOSE, "close")
    small_but_there = 1e-3 * torch.randn(50)
    with pytest.raises(NotRun, match="wrong"):
        close(seen(weight, 0 * small_but_there), seen(weight, small_but_there), CLOSE, "close")
    assert distance({"a": weight}, {"a": weight}) == 0
    assert cosine({"a": weight}, {"a": 2 * weight}) == pytest.approx(1)
    assert cosine({"a": weight}, {"a": -weight}) == pytest.approx(-1)


# -- one model ---------------------------------------------------------------------------------------------------

QUICK = (BASE, AGAIN, "pcgraph", "pcgraph step", "simulation", "il simulation")


@pytest.mark.parametrize("lr", [None, 0.01])
def test_contenders_are_checked_and_then_timed(lr: float | None) -> None:
    found = told(Task(partial(small, lr), QUICK, rounds=8, seconds=0, il_steps=5))
    assert (found.not_run, found.failed) == ({}, "")
    kinds = {key: one["check"]["kind"] for key, one in found.ready.items()}
    assert kinds == dict.fromkeys(QUICK, "bitwise") | {"simulation": "float64", "il simulation": "energy falls"}
    assert found.ready["simulation"]["check"]["distance"] < 1e-12
    assert 0 < found.ready["il simulation"]["check"]["cosine"] < 1
    assert len(found.rounds) == worker.FEWEST_ROUNDS
    assert all({"wall", "cpu"} <= set(one[BASE]) for one in found.rounds)
    assert all(found.peaks[key] > 4 * (6 * 5 + 5 * 3) for key in QUICK)  # the gradients at least
    assert found.peaks[BASE] == found.peaks[AGAIN]
    result = figures("small", "a small one", found)
    assert result["contenders"]["pcgraph"]["vertices"] == 5
    assert result["contenders"]["pcgraph"]["depth"] == 3
    assert result["contenders"]["simulation"]["ratio"]["wall"]["median"] > 1


def test_what_is_not_exact_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pcgraph.PCNetwork.step

    def wrong(self: Any, *args: Any) -> torch.Tensor:
        value = real(self, *args)
        self.module[0].weight.grad[0, 0] += 1e-6
        return value

    monkeypatch.setattr(pcgraph.PCNetwork, "step", wrong)
    found = told(Task(small, (BASE, AGAIN, "pcgraph", "pcgraph step"), rounds=2, seconds=0))
    assert found.not_run == {"pcgraph step": "not exact: the gradient of 0.weight is not backprop's to the bit"}
    assert set(found.rounds[0]) == {BASE, AGAIN, "pcgraph"}
    assert not any("pcgraph step" in one for one in found.rounds)
    assert not exact({"results": [figures("small", "", found)]})


def test_a_back_end_that_is_not_there_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pcgraph.compile
    monkeypatch.setattr(pcgraph, "compile", lambda model, *, example_inputs=None: real(model))
    found = told(Task(small, (BASE, "inductor"), rounds=2, seconds=0))
    assert found.not_run == {"inductor": "this version of pcgraph has no backend='inductor'"}


def test_what_takes_too_long_gives_up_by_itself() -> None:
    found = told(Task(small, (BASE, "il simulation"), rounds=2, seconds=0, limit=0.2, il_steps=10_000))
    assert found.not_run["il simulation"].startswith("over limit: one step would take about")


def test_random_numbers_are_the_same_for_everybody() -> None:
    def noisy() -> Workload:
        task = small()
        task.model.append(nn.Dropout(0.5))
        return task

    found = told(Task(noisy, (BASE, AGAIN, "pcgraph", "pcgraph step", "simulation"), rounds=2, seconds=0))
    assert found.not_run == {}


# -- processes ---------------------------------------------------------------------------------------------------


class FakeProcess:
    """A measuring process that says what it is told to, and then dies, falls silent or is interrupted."""

    exitcode, pid = -9, 1

    def __init__(self, says: list[Any]) -> None:
        self.says, self.killed = says, False

    def start(self) -> None: ...
    def join(self) -> None: ...
    def close(self) -> None: ...
    def is_alive(self) -> bool:
        return self.says[0] == "silence" if self.says else False

    def kill(self) -> None:
        self.killed = True

    def poll(self, timeout: float) -> bool:
        if self.says and self.says[0] is KeyboardInterrupt:
            raise KeyboardInterrupt
        return bool(self.says) and self.says[0] != "silence"

    def recv(self) -> Any:
        return self.says.pop(0)


def faked(monkeypatch: pytest.MonkeyPatch, *scripts: list[Any]) -> list[Task]:
    """Let the n-th process follow the n-th script; returns the tasks that they are started with."""
    tasks: list[Task] = []

    class Context:
        def Pipe(self, duplex: bool) -> tuple[FakeProcess, FakeProcess]:
            self.process = FakeProcess(list(scripts[len(tasks)]))
            return self.process, self.process

        def Process(self, target: Any, args: Any, daemon: bool) -> FakeProcess:
            tasks.append(args[1])
            return self.process

    monkeypatch.setattr(run.multiprocessing, "get_context", lambda method: Context())
    return tasks


ROUND = {"round": {BASE: {"wall": 1.0, "cpu": 1.0}}}
READY = {"ready": BASE, "check": {"kind": "bitwise"}, "first": 1.0}


def test_a_contender_that_kills_its_process_is_left_out_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    dies = [READY, {"at": "simulation", "doing": "checking"}]
    goes_on = [READY, {"at": None, "doing": "racing"}, ROUND, {"done": True}]
    tasks = faked(monkeypatch, dies, goes_on)
    found = run.measure(Task(small, QUICK), None, lambda what: None)
    assert [task.left_out for task in tasks] == [{}, found.not_run]
    assert list(found.not_run) == ["simulation"] and "ended with code -9" in found.not_run["simulation"]
    assert found.rounds == [ROUND["round"]]


@pytest.mark.parametrize("memory", [None, 1])
def test_a_contender_over_a_limit_is_left_out(memory: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    stalls = [{"at": "torch.compile", "doing": "checking"}, "silence"]
    faked(monkeypatch, stalls, [ROUND, {"done": True}])
    monkeypatch.setattr(run, "_resident", lambda pid: 2**30)
    limit = 1000.0 if memory else 0.0
    found = run.measure(Task(small, QUICK, limit=limit), memory, lambda what: None)
    assert found.not_run["torch.compile"].startswith("over limit: more than")
    assert len(found.rounds) == 1


def test_without_backprop_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, [{"at": BASE, "doing": "building"}])
    found = run.measure(Task(small, QUICK), None, lambda what: None)
    assert "ended with code -9" in found.failed


def test_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, [READY, {"at": None, "doing": "racing"}, ROUND, ROUND, KeyboardInterrupt])
    monkeypatch.setattr(run, "memory_bytes", lambda: None)
    settings = run.Settings({"one": ("the first", Task(small, QUICK)), "two": ("the second", Task(small, QUICK))})
    kept: list[int] = []
    ignore = lambda text: None  # noqa: E731
    report = run.run(settings, ignore, ignore, lambda report: kept.append(len(report["results"])))
    assert report["interrupted"] and kept == [1]
    (only,) = report["results"]
    assert (only["model"], only["rounds"], only["interrupted"]) == ("one", 2, True)
    assert "one: interrupted after 2 rounds" in notes(report)


def test_resident_size_of_this_process() -> None:
    import os

    if not Path("/proc").exists():
        pytest.skip("no /proc")
    assert run._resident(os.getpid()) > 2**20
    assert run._resident(2**30) == 0


# -- figures and reports -----------------------------------------------------------------------------------------


def collected() -> Collected:
    check = {"kind": "bitwise", "distance": 0.0, "bound": 0.0}
    ready = {BASE: {"check": check, "first": 1.0}, AGAIN: {"check": check, "first": 1.0}}
    ready["pcgraph"] = {"check": check, "first": 3.0, "vertices": 1234, "depth": 7, "stages": {"capture": 0.5}}
    ready["il"] = {"check": {"kind": "energy falls", "cosine": 0.75}, "first": 9.0}
    rounds = [
        {key: {"wall": wall, "cpu": wall} for key, wall in ((BASE, base), (AGAIN, 1.1 * base), ("pcgraph", mine))}
        for base, mine in ((2.0, 1.0), (4.0, 3.0), (3.0, 6.0))
    ]
    rounds[0]["il"] = {"wall": 50.0, "cpu": 50.0}
    not_run = {"inductor": "over limit:\n more than 1 s"}
    return Collected(ready, not_run, rounds, {BASE: 2**20, "pcgraph": 2**19})


def report() -> dict[str, Any]:
    failed = Collected(failed="no\nmemory")
    return {
        "results": [figures("net", "a net", collected()), figures("huge", "a huge net", failed)],
        "settings": {"seed": 0, "il_steps": 20, "rounds": 9, "seconds": 2.5, "limit": 60.0}
        | {"contenders": [BASE, AGAIN, "pcgraph"]},
        "versions": {"torch": "2.13.0"},
        "machine": {"accelerator": None, "processor": "P", "architecture": "A", "torch_threads": 1, "cores": 2}
        | {"device": "cpu", "load": 0.5},
        "load_after": 0.7,
        "date": "2026-01-01",
    }


def test_figures_are_medians_and_quartiles() -> None:
    result = figures("net", "a net", collected())
    pcgraph_, il = result["contenders"]["pcgraph"], result["contenders"]["il"]
    assert pcgraph_["seconds"]["wall"] == {"median": 3.0, "low": 2.0, "high": 4.5}
    assert pcgraph_["ratio"]["wall"] == {"median": 1.0, "low": 0.625, "high": 1.375}  # of 0.5, 0.75 and 2
    assert pcgraph_["compile_seconds"] == 0.0  # 3 s, as long as a step
    assert (pcgraph_["peak_ratio"], pcgraph_["vertices"], pcgraph_["depth"]) == (0.5, 1234, 7)
    assert (il["runs"], il["ratio"]["wall"]["median"]) == (1, 25.0)
    assert control(result) == pytest.approx(0.1)
    assert result["contenders"]["inductor"] == {"not_run": "over limit:\n more than 1 s"}


def test_json_is_valid() -> None:
    found = collected()
    found.rounds[0][BASE]["wall"] = found.rounds[1][BASE]["wall"] = found.rounds[2][BASE]["wall"] = 0.0
    found.ready["il"]["check"]["cosine"] = float("nan")
    text = as_json(report() | {"results": [figures("net", "", found)]})
    assert not re.search(r"NaN|Infinity", text)
    again = json.loads(text)["results"][0]["contenders"]
    assert again["pcgraph"]["ratio"]["wall"]["median"] is None
    assert again["il"]["check"]["cosine"] is None
    assert list(rows(figures("net", "", found)))  # and can still be shown
    assert finite({"a": (1.0, float("-inf"))}) == {"a": [1.0, None]}


def test_rows_and_notes() -> None:
    net, huge = report()["results"]
    lines = {cells[0]: cells[1:] for cells in rows(net)}
    assert heading(net) == "net: a net; 1,234 vertices, depth 7"
    assert lines["pcgraph"] == ("3,000", "1.000 [0.62, 1.38]", "1.000", "0.5", "0.500", "0.00", "3", "bitwise")
    assert lines["il"][1] == "25.0" and lines["il"][-1] == "cos 0.750"
    assert lines["inductor"][-1] == "not run" and not list(rows(huge))
    assert "net: inductor not run (over limit: more than 1 s)" in notes(report())
    assert "huge: not run (no memory)" in notes(report())
    assert any("net: backprop differs from itself by 10% (A/A)" in line for line in notes(report()))
    assert exact(report())


def test_tables_of_several_models_stand_in_line_and_fit_a_terminal() -> None:
    net = report()["results"][0]
    out = io.StringIO()
    Console(file=out, width=95).print(table(net), table(net | {"contenders": {BASE: net["contenders"][BASE]}}))
    lines = out.getvalue().splitlines()
    heads = [line for line in lines if "contender" in line]
    assert len(heads) == 2 and heads[0] == heads[1]
    assert any("1.000 [0.62, 1.38]" in line and "bitwise" in line for line in lines)


def test_markdown_goes_between_its_marks(tmp_path: Path) -> None:
    text = as_markdown(report())
    assert "    pcgraph bench net huge --only 'pcgraph' --device cpu --threads 1 --rounds 9 --seconds 2.5 " in text
    assert "| net | 1.100 | 1.000 | 25.0 | not run |" in text
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- pcgraph bench -->\nold\n<!-- end of pcgraph bench -->\nafter\n")
    write_between(path, "pcgraph bench", text)
    write_between(path, "pcgraph bench", text)
    assert path.read_text() == f"before\n<!-- pcgraph bench -->\n{text}\n<!-- end of pcgraph bench -->\nafter\n"
    path.write_text("no marks")
    with pytest.raises(PCGraphError, match="no place for the tables"):
        write_between(path, "pcgraph bench", text)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_plot(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"ratios{suffix}"
    plot.write(report()["results"], path)
    begin = path.read_bytes()[:200]
    assert begin.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in begin


def test_plots_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PCGraphError, match=r"\.png or \.svg"):
        plot.check(tmp_path / "ratios.pdf")
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PCGraphError, match=r"pcgraph\[plot\]"):
        plot.check(tmp_path / "ratios.png")


# -- models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith(("1000", "5000"))])
def test_models_are_what_their_seed_makes_them(name: str) -> None:
    one, two = built_in(name, 3), built_in(name, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert torch.equal(one.inputs[0], two.inputs[0]) and torch.equal(one.target, two.target)
    if name not in ("resnet50", "vgg11", "resnet18"):  # the rest takes milliseconds
        assert one.loss(one.model(*one.inputs), one.target).isfinite()


def test_experts_answer_the_tokens_that_they_are_sent() -> None:
    torch.manual_seed(0)
    block = Experts(8, experts=3, capacity=4)
    x = torch.randn(20, 8)
    h = block.norm(x)
    gate, chosen = torch.softmax(block.router(h), -1).max(-1)
    wanted, taken = x.clone(), [0, 0, 0]
    for n in range(20):
        e = int(chosen[n])
        if taken[e] < 4:
            wanted[n] += gate[n] * (F.gelu(h[n] @ block.up[e]) @ block.down[e])
        taken[e] += 1
    assert max(taken) > 4  # some had to pass by
    torch.testing.assert_close(block(x), wanted)


def test_a_model_of_the_users_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"a": self.norm(x), "b": x.argmax(1), "c": self.norm(x).sum(1)}

    model = Two()
    task = own(model, (torch.randn(6, 4),), seed=0)
    assert model.norm.num_batches_tracked == 0  # looking at the output moved nothing
    assert [tuple(t.shape) for t in task.target] == [(6, 4), (6,)]
    assert task.loss(model(*task.inputs), task.target).isfinite()
    with pytest.raises(PCGraphError, match="real floating point"):
        own(nn.Flatten(), (torch.ones(2, 2, dtype=torch.int64),), seed=0)


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--models", "lenet,alexnett"], "--models does not know alexnett"),
        (["--models", ","], "--models names nothing"),
        (["--only", "jax"], "--only does not know jax"),
        (["--input", "2x4"], "--input goes with a MODEL"),
        (["nets:make"], "needs its inputs"),
        (["no_such_module:make", "--input", "2x4"], "there is no module 'no_such_module'"),
        (["--from", "none.json"], "none.json is no report of the benchmark"),
        (["--plot", "ratios.pdf"], "a plot cannot be written to ratios.pdf"),
        (["--json", "no_such_folder/a.json"], "cannot be written"),
        (["--device", "mps" if not torch.backends.mps.is_available() else "cuda"], "torch cannot use the device"),
    ],
)
def test_what_the_command_refuses(arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*arguments)
    assert result.exit_code == 2, result.stderr
    assert complaint in result.stderr
    assert result.stdout == ""


def test_list() -> None:
    result = cli("--list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in (*MODELS, *CONTENDERS))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "page.md"
    path.write_text("<!-- pcgraph bench -->\n<!-- end of pcgraph bench -->\n")
    yield path


def test_the_command_from_start_to_end(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench_nets.py").write_text("from torch import nn\n\ndef make():\n    return nn.Linear(4, 3)\n")
    monkeypatch.chdir(tmp_path)
    options = ["--only", "pcgraph", "--rounds", "2", "--json", "a.json", "--write", str(page)]
    result = cli("bench_nets:make", "--input", "5x4", *options)
    assert result.exit_code == 0, result.stderr
    document = json.loads((tmp_path / "a.json").read_text())
    (one,) = document["results"]
    assert (one["model"], one["rounds"], one["failed"]) == ("bench_nets:make", 2, "")
    assert list(one["contenders"]) == [BASE, AGAIN, "pcgraph"]
    assert one["contenders"]["pcgraph"]["check"]["kind"] == "bitwise"
    assert document["machine"]["torch_threads"] == 1
    assert "bitwise" in result.stdout and "torch" in result.stdout
    assert "| bench_nets:make |" in page.read_text()
    written = page.read_text()
    again = cli("--from", "a.json", "--write", str(page))
    assert again.exit_code == 0, again.stderr
    assert again.stdout == result.stdout and page.read_text() == written
