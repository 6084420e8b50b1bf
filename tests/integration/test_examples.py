"""Every example runs, in a process of its own, and prints what it promises."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pcgraph.demo.data import FASHION_MNIST

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "finetune_onnx")
PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "sklearn", "rapidocr_onnxruntime")


DRAWN = ("completion", "energy_descent", "gamma", "seeds", "trajectories", "waves")


def output_of(path: Path, folder: Path, *arguments: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> dict[str, float]:
    """Name -> number of every line that matches."""
    return {match[1].strip(): float(match[2]) for match in re.finditer(pattern, text, re.M)}


def ablations(out: str) -> None:
    gaps = numbers(r"^(.+?) relative distance .* (\S+)$", out)
    assert len(gaps) == 6
    assert gaps.pop("Z-IL") < 1e-12
    assert min(gaps.values()) > 1e-6


def completion(out: str) -> None:
    """What is known of an image helps; how much depends on the data set."""
    errors = numbers(r"^(.+?) squared error of a missing pixel (\S+)$", out)
    assert errors["class known"] < 0.95 * errors["generated"] < 0.95 * errors["mean image"]
    assert errors["class free"] < 0.95 * errors["mean image"]
    assert numbers(r"^(class free) +(\d+)% of the classes found$", out)["class free"] > 40  # by chance: 10


def energy_descent(out: str) -> None:
    """One equilibrium, whatever descends to it."""
    first, last = (numbers(rf"^(.+?) energy {ends}", out) for ends in (r"(\S+) ->", r"\S+ -> (\S+),"))
    assert len(last) == 4 and len(set(first.values())) == 1
    assert max(last.values()) < 0.6 * min(first.values())
    assert max(last.values()) < 1.001 * min(last.values())
    steps = numbers(r"^(.+?) energy .* (\d+) steps$", out)
    assert min(steps, key=steps.__getitem__).startswith("ErrorPC")


def gamma(out: str) -> None:
    """The first of T + 1 = 14 levels learns from gamma^T of its error."""
    shares = numbers(r"^gamma = (\S+) +first layer: (\S+) of", out)
    assert len(shares) == 5
    for name, share in shares.items():
        assert share == pytest.approx(float(name) ** 13, rel=0.05)  # printed with two digits
    gaps = numbers(r"^gamma = (\S+) .* relative distance from backprop (\S+)$", out)
    assert gaps.pop("1") < 1e-12
    assert min(gaps.values()) > 0.1


def seeds(out: str) -> None:
    """Stacked or alone: the same learning, up to rounding in float32."""
    gap = re.search(r"^largest difference of an output (\S+)$", out, re.M)
    assert gap is not None and 0 < float(gap[1]) < 1e-4
    assert re.search(r"^8 seeds, 300 steps: \S+ s one after the other, \S+ s together$", out, re.M)


def trajectories(out: str) -> None:
    assert len(re.findall(r"^(?:backprop|Z-IL) +after 300 steps: equal to the bit$", out, re.M)) == 2
    apart = numbers(r"^(IL, .+?) +after 300 steps: relative distance (\S+)$", out)
    assert len(apart) == 2 and min(apart.values()) > 0.1


def train(out: str) -> None:
    assert "T = 4 inference steps" in out
    assert out.count("eps of") == 5


def waves(out: str) -> None:
    energies = re.search(r"energy (\S+) -> (\S+)", out)
    assert energies is not None and float(energies[2]) < 0.9 * float(energies[1])


CHECKS = (ablations, completion, energy_descent, gamma, seeds, train, trajectories, waves)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_example(check: Callable[[str], None], tmp_path: Path) -> None:
    name = check.__name__
    if name in DRAWN:
        pytest.importorskip("matplotlib", reason="needs matplotlib")
    if name == "completion" and not FASHION_MNIST.is_dir():
        pytest.importorskip("sklearn", reason="needs FashionMNIST, or scikit-learn")
    arguments = ("--out", "picture.png") if name in DRAWN else ()
    check(output_of(FOLDER / f"{name}.py", tmp_path, *arguments))
    assert not arguments or (tmp_path / "picture.png").stat().st_size > 10_000


def test_every_example_is_run() -> None:
    assert {check.__name__ for check in CHECKS} == {path.stem for path in EXAMPLES}


@pytest.mark.slow
def test_finetune_onnx(tmp_path: Path) -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    output = tmp_path / "tuned.onnx"
    command = [sys.executable, str(FOLDER / "finetune_onnx.py"), "--output", str(output), "--steps", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    before, after = map(float, re.findall(r"(?:before|after) ([0-9.]+)%", done.stdout))
    assert after > max(before, 90), done.stdout
    gap = float(re.search(r"outputs within (\S+) of the module's, 100.0% of the decisions", done.stdout)[1])
    assert gap < 1e-4, "probabilities of two implementations in float32"
    assert output.stat().st_size > 500_000 and "step 20 of 20" in done.stderr


def test_finetune_onnx_says_what_to_install(tmp_path: Path) -> None:
    """Without any package but torch, and the file of the package hidden."""
    script = "import runpy, sys; sys.modules.update(dict.fromkeys(['sklearn.datasets', 'onnxruntime'])); runpy.run_path"
    path = str(FOLDER / "finetune_onnx.py")
    for arguments, words in (([], "rapidocr_onnxruntime"), (["--file", "net.onnx"], "pip install 'pcgraph[demo]'")):
        if not arguments and importlib.util.find_spec("rapidocr_onnxruntime"):
            continue
        code = f"{script}({path!r}, run_name='__main__')"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=300,
            check=False,
        )
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
