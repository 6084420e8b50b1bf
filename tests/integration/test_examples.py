"""Every example runs, in a process of its own, and prints what it promises."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "finetune_onnx")
PACKAGES = ("onnx", "onnx_ir", "onnxruntime", "sklearn", "rapidocr_onnxruntime")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    if path.stem == "ablations":
        gaps = {
            m[1].strip(): float(m[2]) for m in re.finditer(r"^(.+?) relative distance .* (\S+)$", done.stdout, re.M)
        }
        assert len(gaps) == 6
        assert gaps.pop("Z-IL") < 1e-12
        assert min(gaps.values()) > 1e-6
    elif path.stem == "waves":
        energies = re.search(r"energy (\S+) -> (\S+)", done.stdout)
        assert energies is not None and float(energies[2]) < 0.9 * float(energies[1])
        assert (tmp_path / "waves.png").stat().st_size > 10_000
    else:
        assert "T = 4 inference steps" in done.stdout
        assert done.stdout.count("eps of") == 5


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
