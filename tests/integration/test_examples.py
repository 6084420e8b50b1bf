"""Every example runs, in a process of its own, and prints what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    if path.stem == "ablations":
        gaps = {
            m[1].strip(): float(m[2]) for m in re.finditer(r"^(.+?) relative distance .* (\S+)$", done.stdout, re.M)
        }
        assert len(gaps) == 6
        assert gaps.pop("Z-IL") < 1e-12
        assert min(gaps.values()) > 1e-6
    else:
        assert "T = 4 inference steps" in done.stdout
        assert done.stdout.count("eps of") == 5
