"""`pcgraph reproduce`: cells are kept, measured again or marked; Z-IL is exact and its ablations are not."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

import pcgraph
from pcgraph import PCGraphError
from pcgraph.cli.app import app
from pcgraph.reproduce import data, divergence, relatives, timing, training
from pcgraph.reproduce.cell import Cell, Experiment, Found, NotRun, Settings, rows
from pcgraph.reproduce.experiments import ALL, named
from pcgraph.reproduce.keep import FILE, Kept
from pcgraph.reproduce.run import differing, run


def write_fashion(folder: Path, images: int) -> None:
    """Random images in the four files of FashionMNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part in ("train", "t10k"):
        pixels = random.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        labels = np.arange(images, dtype=np.uint8) % 10
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())


def quiet(text: str) -> None:
    """Tell nobody."""


class Counting:
    """An experiment of three cells that counts how often each is measured.

    Args:
        fails: raised by the second cell.
    """

    def __init__(self, fails: BaseException | None = None) -> None:
        self.fails, self.measured = fails, []
        self.version = "1"

    def experiment(self) -> Experiment:
        def measure(name: str) -> dict[str, Any]:
            self.measured.append(name)
            if name == "b" and self.fails is not None:
                raise self.fails
            return {"value": len(self.measured), "nothing": math.nan, "equal": True}

        def cells(settings: Settings) -> list[Cell]:
            return [Cell("counting", n, lambda tell, n=n: measure(n), {"seed": settings.seed}) for n in "abc"]

        return Experiment("counting", "Counting", "nowhere", cells, lambda found: rows(found, {"value": "value"}))


def values(found: dict[str, list[Found]]) -> list[Any]:
    return [item.numbers.get("value", item.not_run) for item in found["counting"]]


def test_a_cell_is_measured_once(tmp_path: Path) -> None:
    counting = Counting()
    for _ in range(2):
        found = run([counting.experiment()], Settings(), tmp_path)
        assert values(found) == [1, 2, 3]
    assert counting.measured == ["a", "b", "c"]
    report = json.loads((tmp_path / "results.json").read_text())
    assert [item["numbers"]["nothing"] for item in report["cells"]["counting"]] == ["nan"] * 3
    text = (tmp_path / "results.md").read_text()
    assert "| b | 2 |" in text and torch.__version__ in text and "seed\n0." in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "results.json", "results.md"]


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    counting = Counting(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run([counting.experiment()], Settings(), tmp_path)
    counting.fails = None
    assert values(run([counting.experiment()], Settings(), tmp_path)) == [1, 3, 4]
    assert counting.measured == ["a", "b", "b", "c"]


def test_other_settings_are_measured_beside_the_first(tmp_path: Path) -> None:
    counting = Counting()
    assert values(run([counting.experiment()], Settings(), tmp_path)) == [1, 2, 3]
    assert values(run([counting.experiment()], Settings(seed=1), tmp_path)) == [4, 5, 6]
    assert values(run([counting.experiment()], Settings(), tmp_path)) == [1, 2, 3]


def test_another_version_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting()
    run([counting.experiment()], Settings(), tmp_path)
    monkeypatch.setattr(pcgraph, "__version__", "0.0.0")
    assert values(run([counting.experiment()], Settings(), tmp_path)) == [4, 5, 6]


def test_a_cell_that_was_not_run_is_marked_and_tried_again(tmp_path: Path) -> None:
    counting = Counting(NotRun("install something"))
    assert values(run([counting.experiment()], Settings(), tmp_path)) == [1, "install something", 3]
    assert "| b | not run: install something |" in (tmp_path / "results.md").read_text()
    counting.fails = None
    assert values(run([counting.experiment()], Settings(), tmp_path)) == [1, 4, 3]


def test_damaged_results_and_folders_are_refused(tmp_path: Path) -> None:
    run([Counting().experiment()], Settings(), tmp_path)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"key": "half\n')
    with pytest.raises(PCGraphError, match="line 4 is no result"):
        Kept(tmp_path)
    with pytest.raises(PCGraphError, match="choose another folder"):
        Kept(tmp_path / FILE)


def test_two_runs_in_one_folder_keep_both(tmp_path: Path) -> None:
    one, two = Kept(tmp_path), Kept(tmp_path)
    for kept, name in ((one, "a"), (two, "b"), (one, "c")):
        kept.add(Found(name, "counting", name, {}))
    assert [json.loads(line)["key"] for line in (tmp_path / FILE).read_text().splitlines()] == ["a", "b", "c"]


def test_a_machine_that_stops_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path)
    kept.add(Found("a", "counting", "a", {}))

    def stop(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        kept.add(Found("b", "counting", "b", {}))
    monkeypatch.undo()
    assert len((tmp_path / FILE).read_text().splitlines()) == 1
    Kept(tmp_path).add(Found("b", "counting", "b", {}))
    assert len((tmp_path / FILE).read_text().splitlines()) == 2


def test_what_is_not_finite_is_kept_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    cell = Cell("divergence", "exploding", lambda tell: {"all parameters at T": math.inf, "gamma = 0.5": 0.5})
    found = run([replace(divergence.EXPERIMENT, cells=lambda settings: [cell])], Settings(), tmp_path)
    assert found["divergence"][0].numbers["all parameters at T"] == "inf"
    assert (tmp_path / "divergence.svg").stat().st_size > 0


def test_without_matplotlib_the_report_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    cell = Cell("divergence", "one", lambda tell: {divergence.COMPILED: 0.0})
    run([replace(divergence.EXPERIMENT, cells=lambda settings: [cell])], Settings(), tmp_path)
    assert "pip install 'pcgraph[plot]'" in (tmp_path / "results.md").read_text()
    assert not (tmp_path / "divergence.svg").exists()


def test_data_from_elsewhere_is_another_cell_that_names_no_folder(tmp_path: Path) -> None:
    here, there = (Settings(data=tmp_path / name) for name in ("here", "there"))
    keys = [training.cells(settings)[0].key for settings in (Settings(), here, there)]
    assert len(set(keys)) == 3
    assert not any(str(tmp_path) in key for key in keys)


def test_names_are_unique() -> None:
    for settings in (Settings(), Settings(full=True)):
        keys = [cell.key for experiment in ALL for cell in experiment.cells(settings)]
        assert len(set(keys)) == len(keys) > 25
    assert [one.name for one in named(["timing", "divergence"])] == ["divergence", "timing"]


# -- what is measured ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def apart() -> Iterator[list[Found]]:
    """Divergence of all networks in float32 and float64."""
    cells = divergence.cells(Settings())
    yield [Found(cell.key, cell.experiment, cell.name, cell.measure(quiet)) for cell in cells]


def test_z_il_does_not_diverge_and_every_ablation_does(apart: list[Found]) -> None:
    assert len(apart) == 2 * len(divergence.NETS)
    for item in apart:
        single = "float32" in item.name
        assert item.numbers[divergence.COMPILED] == 0
        assert item.numbers["equal to the bit"] is True
        # Rounding of float32 and float64, times the growth of an error on the way down; errors as the state keep more.
        assert item.numbers[divergence.SIMULATED] < (1e-6 if single else 1e-14)
        assert item.numbers["simulation, values as state"] < (1e-4 if single else 1e-12)
        for name in divergence.CONDITIONS:
            if "simulation" in name:
                continue
            if name == divergence.UNLEVELLED and "residual" not in item.name:
                assert name not in item.numbers
            else:
                assert item.numbers[name] > 1e-2, (item.name, name)


def test_gamma_scales_errors_by_its_power_of_depth(apart: list[Found]) -> None:
    laws = [item.numbers[divergence.LAW] for item in apart if "float64" in item.name]
    assert len(laws) == len(divergence.NETS)
    assert max(laws) < 1e-13  # a few roundings of float64


def test_distance_is_relative() -> None:
    wanted = {"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}
    assert divergence.distance(wanted, wanted) == 0
    assert divergence.distance({"a": torch.tensor([3.0]), "b": torch.tensor([9.0])}, wanted) == 1


def test_times_are_those_of_equal_gradients() -> None:
    timed = replace(timing.PAPER["MLP, 1 hidden layer"], rounds=(3, 3))
    numbers = timing._measure(timed, Settings(il_steps=3), quiet)
    assert numbers["equal"] is True and numbers["distance"] == 0
    assert numbers["T"] == numbers["rounds"] == 3
    assert all(numbers[f"{name}_ratio"] > 0 for name in ("again", "zil", "step", "il"))


PLAN = training.Plan("AlexNet", "FashionMNIST", 2, 0, width=0.1, batch=8, looks=2)


def test_trainings_end_with_the_same_bits(tmp_path: Path) -> None:
    write_fashion(tmp_path, images=24)
    split = training.load(PLAN, tmp_path)
    numbers = training.train(PLAN, split, quiet)
    assert numbers["equal"] is True and numbers["largest_weight_difference"] == 0
    assert numbers["curve_bp"] == numbers["curve_zil"] and numbers["curve_steps"] == [3, 6]
    control = training.train(PLAN, split, quiet, z_il_seed=1)
    assert control["equal"] is False and control["largest_weight_difference"] > 0
    assert differing({"training": [Found("", "training", "control", control)]}) == ["training: control"]


@pytest.mark.parametrize("name", relatives.RULES)
def test_relatives_learn(name: str, tmp_path: Path) -> None:
    write_fashion(tmp_path, images=128)
    course = replace(relatives.RULES[name], steps=(4, 4))
    numbers = relatives._train(course, Settings(data=tmp_path), quiet)
    assert 0 <= numbers["accuracy"] <= 1 and len(numbers["curve"]) == 4
    assert numbers["ratio"] > 0 and numbers["steps"] == 4


@pytest.mark.parametrize("rule", [pcgraph.ErrorPC(gamma=0.01, steps=5), pcgraph.IL(gamma=0.4, steps=20)])
def test_what_inference_does_is_what_the_simulation_says(rule: pcgraph.Rule) -> None:
    torch.manual_seed(0)
    model, x, y = relatives.residual(12, 16, 784), torch.randn(8, 784), torch.arange(8)
    course = relatives.Course(rule, scaled=True)
    learner = relatives.Learner(model, pcgraph.mupc(model, x, lr=0.1), course)
    numbers = learner.inference(x, y)
    onehot = torch.nn.functional.one_hot(y, 10).float()
    trace = pcgraph.compile(model).simulate(x, target=onehot, rule=rule)
    assert numbers["removed"] == pytest.approx(1 - trace.energies[-1] / trace.energies[0], abs=1e-5)  # float32
    far = isinstance(rule, pcgraph.ErrorPC)  # 37 levels, of which 20 steps of IL see 20
    assert numbers["reached"] == 1 if far else 0.4 < numbers["reached"] < 0.7
    assert numbers["cosine"] > 0.9 if far else numbers["cosine"] == 0
    assert relatives.Learner(model, model.parameters(), relatives.Course(None)).inference(x, y) == {}


def test_rates_of_deep_networks_fall_to_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path, images=128)
    seen = []
    step = relatives.Learner.step

    def watched(self: relatives.Learner, x: torch.Tensor, y: torch.Tensor) -> None:
        seen.append([group["lr"] for group in self.optimizer.param_groups])
        step(self, x, y)

    monkeypatch.setattr(relatives.Learner, "step", watched)
    monkeypatch.setattr(relatives, "BESIDE", 4)
    monkeypatch.setitem(relatives.NETS, "20 blocks", lambda: relatives.residual(2, 8, 784))
    course = replace(relatives.DEEP["20 residual blocks, backprop"], steps=(4, 4))
    relatives._train(course, Settings(data=tmp_path), quiet)
    shares = [rate / seen[0][0] for rate in (rates[0] for rates in seen[:4])]
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25])


# -- the command -----------------------------------------------------------------------------------
def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", *arguments], prog_name="pcgraph")


def test_the_command_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = [replace(PLAN, net="MLP"), replace(PLAN, data="CIFAR-10")]
    monkeypatch.setattr(training, "plans", lambda settings: [replace(plan, seed=settings.seed) for plan in tiny])
    monkeypatch.setattr(data, "FASHION_MNIST", tmp_path / "nowhere")
    write_fashion(tmp_path / "sets", images=24)
    arguments = ("--only", "training", "--seed", "3", "--output", str(tmp_path / "out"))
    result = command(*arguments, "--data", str(tmp_path / "sets"))
    assert result.exit_code == 0, result.output
    assert "not run: data not available: CIFAR-10" in result.stdout
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert report["command"] == "pcgraph reproduce --quick --only training --seed 3 --data FOLDER"
    first, second = report["cells"]["training"]
    assert first["numbers"]["equal"] is True and second["not_run"].startswith("data not available")
    assert str(tmp_path) not in (tmp_path / "out" / "results.md").read_text()
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    assert (tmp_path / "out" / "training.png").stat().st_size > 0


def test_the_command_fails_where_z_il_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = Cell("divergence", "wrong", lambda tell: {"equal to the bit": False})
    broken = replace(divergence.EXPERIMENT, cells=lambda settings: [cell], draw=None)
    monkeypatch.setattr("pcgraph.reproduce.experiments.ALL", (broken,))
    result = command("--output", str(tmp_path))
    assert result.exit_code == 1
    assert "Z-IL differed from backprop: divergence: wrong" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--only", "tables"), "no experiment tables"),
        (("--only", "divergence", "--output", "{file}"), "results cannot be kept"),
        (("--data", "{file}/none"), "there is no folder"),
        (("--il-steps", "0"), "--il-steps"),
    ],
)
def test_errors_of_the_command(arguments: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = command(*(one.format(file=file) for one in arguments))
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_the_list_measures_nothing(tmp_path: Path) -> None:
    result = command("--list", "--output", str(tmp_path / "out"))
    assert result.exit_code == 0
    for experiment in ALL:
        assert f"{experiment.name}: {experiment.title}" in result.stdout
    assert "  MLP, FashionMNIST" in result.stdout
    assert not (tmp_path / "out").exists()


def test_settings_are_all_in_the_key_of_a_training() -> None:
    cell = training.cells(Settings())[0]
    assert json.loads(cell.key)[2] == asdict(training.plans(Settings())[0])
