"""The house rules that a machine can check: import direction, private torch names, file length, public names."""

from __future__ import annotations

import ast
from pathlib import Path

import pcgraph

ROOT = Path(pcgraph.__file__).parent
# Which parts of the package a part may import, besides itself. `lower` is the one joint of capture and graph.
ALLOWED = {
    "errors": set(),
    "marks": set(),
    "measure": set(),
    "machine": set(),
    "graph": {"errors", "passes"},  # PCGraph.levelled() calls the pass, inside the method
    "passes": {"errors", "graph"},
    "schedule": {"errors", "graph"},
    "capture": {"errors", "graph", "marks"},
    "codegen": {"errors", "graph", "schedule"},
    "dynamics": {"errors", "graph", "passes", "schedule"},
    "runtime": {"errors", "graph", "marks", "schedule", "codegen", "dynamics"},
    "compiler": {"errors", "graph", "passes", "schedule", "capture", "codegen", "dynamics", "runtime"},
    "rounding": set(),
    "onnx": {"errors"},
    "mupc": {"errors", "graph", "compiler"},
    "verify": {"errors", "compiler", "measure", "rounding"},
    "reproduce": {"errors", "measure", "machine", "bench", "demo"},  # and what pcgraph itself makes public
}


def modules() -> list[tuple[str, Path]]:
    return [(p.relative_to(ROOT).parts[0].removesuffix(".py"), p) for p in sorted(ROOT.rglob("*.py"))]


def imported_parts(path: Path) -> set[str]:
    """Parts of pcgraph that a file imports, wherever in the file."""
    package = ("pcgraph", *path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            full = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*full, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "pcgraph" and len(name) > 1}
    return found


def test_imports_run_one_way() -> None:
    checked = 0
    for part, path in modules():
        if part not in ALLOWED:
            continue  # cli, demo, bench and the package's own __init__ may import everything
        checked += 1
        extra = imported_parts(path) - ALLOWED[part] - {part}
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"
    assert checked > 40


def test_only_lower_joins_capture_and_graph() -> None:
    """Everything else in capture takes only the plain records of `graph.vertex` (specs, sources, roles)."""
    for part, path in modules():
        if part != "capture" or path.name == "lower.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2 and (node.module or "").startswith("graph"):
                assert node.module == "graph.vertex", f"{path.name} imports {node.module}"


def test_no_backward_over_more_than_one_vertex() -> None:
    """Autograd's engine is called over one vertex at a time, in the files below; the rest compares with it."""
    engine = {"backward", "grad"}
    found = set()
    for part, path in modules():
        if part in ("verify", "demo", "cli", "bench", "reproduce"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in engine:
                owner = ast.unparse(node.func.value)
                if node.func.attr == "backward" or owner.endswith("autograd"):
                    found.add(path.relative_to(ROOT).as_posix())
    assert found == {
        "codegen/check.py",  # proves a kind against autograd, on one vertex
        "codegen/local.py",  # traces one vertex
        "codegen/opaque.py",  # runs one vertex that cannot be traced
        "dynamics/cell.py",  # one vertex of the simulation
        "dynamics/energy.py",  # the energy of one vertex, by its value and its prediction
        "dynamics/network.py",  # the loss, by the outputs' predictions
        "runtime/face.py",  # a loss with opaque vertices, by the outputs' predictions
        "runtime/step.py",  # calls a network as its user would, where hooks wait for the engine
    }


def test_public_names() -> None:
    assert sorted(pcgraph.__all__) == [
        "Bernoulli",
        "CaptureError",
        "Captured",
        "Categorical",
        "Energy",
        "ErrorPC",
        "FixedPrediction",
        "Flow",
        "Gaussian",
        "GraphError",
        "IL",
        "IncrementalPC",
        "Inferred",
        "LearnError",
        "OnnxExportError",
        "OnnxImportError",
        "PCGraph",
        "PCGraphError",
        "PCNetwork",
        "Report",
        "Rule",
        "Schedule",
        "ScheduleError",
        "Trace",
        "ZIL",
        "capture",
        "compile",
        "from_onnx",
        "lower",
        "mupc",
        "schedule",
        "to_onnx",
        "verify",
    ]
    assert all(hasattr(pcgraph, name) for name in pcgraph.__all__)


def test_files_fit_in_a_head() -> None:
    long = {p.relative_to(ROOT).as_posix(): n for _, p in modules() if (n := len(p.read_text().splitlines())) > 420}
    assert not long, long
