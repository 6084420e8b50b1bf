"""Imported modules as Python source: what it computes, and that nothing of the file becomes code."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

import pcgraph  # noqa: E402
from pcgraph.onnx.module import OnnxModule  # noqa: E402
from pcgraph.onnx.source import python_source  # noqa: E402
from tests.onnx.build import model  # noqa: E402
from tests.onnx.exports import Export, Recurrent, UNet, exported, perturbed  # noqa: E402
from tests.onnx.test_import import merged, perceptron  # noqa: E402

HEAD = {"torch", "Tensor", "nn", "F", "Path", "Network"}
BRANCHES = """g (float[N, 4] x, bool flag) => (float[N, 4] y) {
    a = MatMul(x, w)
    y = If(flag) <
        then_branch = t () => (float[N, 4] p) { q = MatMul(a, v) p = Add(q, c) },
        else_branch = e () => (float[N, 4] r) { r = Neg(a) }
    >
}"""
LOOP = """g (float[N, 4] x, int64 count) => (float[N, 4] y, float[K, N, 4] rows) {
    y, rows = Loop(count, , x) <body = b (int64 i, bool c, float[N, 4] v) => (bool d, float[N, 4] z, float[N, 4] row) {
        d = Identity(c)
        z = MatMul(v, w)
        row = Tanh(z)
    }>
}"""
SCAN = """g (float[4] start, float[T, 4] x) => (float[4] end, float[T, 4] rows) {
    end, rows = Scan<num_scan_inputs = 1, scan_input_directions = [1], body = b (float[4] s, float[4] e) =>
        (float[4] t, float[4] row) { m = Mul(s, w) t = Add(m, e) row = Identity(t) }>(start, x)
}"""


def branches() -> OnnxModule:
    return pcgraph.from_onnx(model(BRANCHES, w=torch.randn(4, 4), v=torch.randn(4, 4), c=torch.randn(4)))


def unet() -> OnnxModule:
    case = Export(UNet, lambda n: (torch.randn(n, 3, 16, 16),))
    return pcgraph.from_onnx(exported(perturbed(case.make), case, dynamo=False, opset=17))


def lstm() -> OnnxModule:
    case = Export(lambda: Recurrent(nn.LSTM, bidirectional=True), lambda n: (torch.randn(5, n, 5),), 1)
    return pcgraph.from_onnx(exported(perturbed(case.make), case, dynamo=False, opset=14))


def tied() -> OnnxModule:
    """An embedding that is the output layer as well, in half precision, and a frozen scale."""
    text = "g (int64[N] x) => (float16[N, 9] y) { a = Gather(w, x) b = Mul(a, s) t = Transpose(w) y = MatMul(b, t) }"
    weights = {"w": torch.randn(9, 4).half(), "s": torch.rand(4).half()}
    return pcgraph.from_onnx(model(text, **weights), trainable=lambda candidate: candidate.name == "w")


def digits() -> OnnxModule:
    """Names of modules and tensors that are numbers, some beside names of a dictionary's methods."""
    text = """g (float[N, 4] x) => (float[N, 4] y) {
        a = MatMul(x, "0.weight")
        b = Mul(a, "1")
        c = MatMul(b, "block.0.weight")
        d = MatMul(c, "block.keys.weight")
        y = Mul(d, "block.1.2")
    }"""
    square, row = torch.randn(4, 4), torch.randn(4)
    weights = {"0.weight": square, "1": row, "block.0.weight": square + 1, "block.keys.weight": square + 2}
    return pcgraph.from_onnx(model(text, **weights, **{"block.1.2": row + 1}))


CASES: dict[Callable[[], OnnxModule], tuple[Tensor, ...]] = {
    lambda: pcgraph.from_onnx(perceptron()[0]): (torch.randn(5, 4),),
    lambda: pcgraph.from_onnx(merged()): (torch.randn(5, 4),),
    branches: (torch.randn(5, 4), torch.tensor(True)),
    lambda: pcgraph.from_onnx(model(LOOP, w=torch.randn(4, 4))): (torch.randn(2, 4), torch.tensor(3)),
    lambda: pcgraph.from_onnx(model(SCAN, w=torch.randn(4))): (torch.randn(4), torch.randn(6, 4)),
    unet: (torch.randn(2, 3, 16, 16),),
    lstm: (torch.randn(5, 3, 5),),
    tied: (torch.tensor([3, 8]),),
    digits: (torch.randn(5, 4),),
}
NAMES = ("perceptron", "merged", "branches", "loop", "scan", "unet", "lstm", "tied", "digits")


def run(module: OnnxModule, folder: Path) -> ModuleType:
    """The source, written and imported, with the weights beside it."""
    path = folder / "net.py"
    path.write_text(python_source(module, "1.2.3"), encoding="ascii")
    torch.save(module.state_dict(), path.with_suffix(".pt"))
    spec = importlib.util.spec_from_file_location("net", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("make", CASES, ids=NAMES)
def test_the_source_computes_and_learns_the_same(make: Callable[[], OnnxModule], tmp_path: Path) -> None:
    module = make()
    network = run(module, tmp_path).load()
    assert not network.training
    for mine, theirs in ((network.named_parameters(), module.named_parameters()),):
        assert [(n, p.requires_grad, p.dtype) for n, p in mine] == [(n, p.requires_grad, p.dtype) for n, p in theirs]
    assert list(network.state_dict()) == list(module.state_dict())
    for one in (network, module):
        outputs = one(*CASES[make])
        sum(y.float().square().sum() for y in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    for mine, theirs in zip(network.parameters(), module.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)
    found, expected = (m(*CASES[make]) for m in (network, module))
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    assert all(torch.equal(a, b) for a, b in pairs)


def test_what_is_plain_torch_needs_torch_only(tmp_path: Path) -> None:
    module = pcgraph.from_onnx(perceptron()[0])
    text = python_source(module, "1.2.3")
    assert "Needs torch." in text and "import pcgraph" not in text and "from pcgraph" not in text
    assert 'self.block["0"] = nn.Linear(4, 5)' in text
    text = python_source(unet(), "1.2.3")
    assert "Needs torch, and pcgraph" in text and "from pcgraph.onnx.operators import" in text


@pytest.mark.parametrize(
    "name",
    ['a"); import os; os.abort() #', "'''", '"""', "\\", "__class__", "self", "torch", "nn", "F", "load", "Network",
     "control", "shape", "forward", "lambda", "a\nb", "ünïcode", "\u2028", "x" * 1000, "0", "min"],
)  # fmt: skip
def test_names_never_become_code(name: str, tmp_path: Path) -> None:
    proto = model("g (float[N, 4] x) => (float[N, 2, 2] y) { a = MatMul(x, w) b = Mul(a, v) y = Reshape(b, s) }")
    tensors = {"w": torch.eye(4), "v": torch.ones(4), "s": torch.tensor([-1, 2, 2])}
    renamed = {"w": f"{name}.weight", "v": name, "x": f"{name} x", "y": f"{name} y", "a": f"{name} a", "b": f"{name} b"}
    renamed["s"] = f"{name} s"
    for key, tensor in tensors.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), key))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = renamed[value.name]
    for node in proto.graph.node:
        node.name = name
        node.input[:] = [renamed[i] for i in node.input]
        node.output[:] = [renamed[o] for o in node.output]
    module = pcgraph.from_onnx(proto)
    assert_only_known_names(python_source(module, "1.2.3"))
    x = torch.rand(2, 4)
    assert torch.equal(run(module, tmp_path).load()(x), x.reshape(2, 2, 2))


@pytest.mark.parametrize("value", ['"); print("run") #', "'", "\\", '"""', "\n", "\u2028é"])
def test_strings_of_attributes_are_quoted(value: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = "g (float[N, 1, 4] x, float[1, 1, 1] w) => (float[N, 1, 4] y) { y = com.microsoft.FusedConv(x, w) }"
    proto = model(text, domains=', "com.microsoft" : 1')
    proto.graph.node[0].attribute.append(onnx.helper.make_attribute("activation", value))
    module = pcgraph.from_onnx(proto)
    assert_only_known_names(python_source(module, "1.2.3"))
    network = run(module, tmp_path).load()
    with pytest.raises(ValueError, match=re.escape(f"unknown activation {value!r}")):
        network(torch.ones(1, 1, 4), torch.ones(1, 1, 1))
    assert capsys.readouterr().out == ""


def assert_only_known_names(text: str) -> None:
    """Every name that the source reads is imported, built in, an argument, or assigned in the same function."""
    tree = ast.parse(text)
    imported = {
        alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    known = imported | HEAD | {"str", "super", "float", "min", "max", "__file__", "annotations", "getattr"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id == "getattr":
            assert isinstance(call.args[1], ast.Constant) and isinstance(call.args[1].value, str)
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        own = {argument.arg for argument in function.args.args}
        own |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        read = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert read <= own | known, read - own - known
        assert not own & (imported | HEAD)
    statements = {type(node) for node in tree.body}
    assert statements <= {ast.Expr, ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef}


def test_what_cannot_be_written_is_refused() -> None:
    module = pcgraph.from_onnx(perceptron()[0])
    module.block.get_submodule("0").weight = nn.Parameter(torch.zeros(6, 4))
    with pytest.raises(ValueError, match="its tensors are not the usual ones"):
        python_source(module, "1.2.3")
    module = pcgraph.from_onnx(perceptron()[0])
    module.block.add_module("0", nn.Sequential(nn.Linear(4, 5)))
    with pytest.raises(ValueError, match="cannot be written"):
        python_source(module, "1.2.3")
