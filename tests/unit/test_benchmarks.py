"""Scripts in ``benchmarks/``: what they import from here is there, wherever in the file they import it."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_imports_exist(script: Path) -> None:
    siblings = {path.stem for path in SCRIPTS}
    checked = 0
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            assert module not in ("nets", "models"), f"{script.name} imports {module}, which is in pcgraph.bench"
            if module.split(".")[0] == "pcgraph":
                found = importlib.import_module(module)
                missing = [item.name for item in node.names if not hasattr(found, item.name)]
                assert not missing, f"{script.name}: {module} has no {missing}"
                checked += 1
        elif isinstance(node, ast.Import):
            checked += any(item.name in ("pcgraph", *siblings) for item in node.names)
    assert checked
