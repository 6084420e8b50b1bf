"""Trained weights go back into the file, and onnxruntime computes with it what the module computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")

import pcgraph  # noqa: E402
from pcgraph import OnnxExportError  # noqa: E402
from tests.onnx import test_source  # noqa: E402
from tests.onnx.build import model  # noqa: E402
from tests.onnx.exports import Export, Recurrent, UNet, exported, perturbed  # noqa: E402
from tests.onnx.test_import import merged, perceptron  # noqa: E402

CLOSE = 1e-5  # relative to the largest output: onnxruntime's kernels round differently


def run(path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return torch.from_numpy(np.asarray(session.run(None, feed)[0]))


def train(module: nn.Module, *inputs: torch.Tensor, steps: int = 3) -> nn.Module:
    """A few steps by predictive coding."""
    network = pcgraph.compile(module)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        output = network(*inputs)
        F.mse_loss(output, torch.ones_like(output)).backward()
        optimizer.step()
    return network


def assert_round_trip(source: object, path: Path, *inputs: torch.Tensor) -> onnx.ModelProto:
    module = pcgraph.from_onnx(source)
    before = module(*inputs).detach()
    network = train(module, *inputs)
    pcgraph.to_onnx(network, path)
    expected = module(*inputs).detach()
    assert not torch.equal(before, expected)
    scale = float(expected.abs().max())
    assert float((run(path, *inputs) - expected).abs().max()) <= CLOSE * scale
    assert torch.equal(pcgraph.from_onnx(path)(*inputs), expected)
    return onnx.load(path)


def test_linear_layers_keep_graph_and_names(tmp_path: Path) -> None:
    proto, _ = perceptron()
    written = assert_round_trip(proto, tmp_path / "out.onnx", torch.randn(6, 4))
    assert written.graph.node == proto.graph.node
    assert [t.name for t in written.graph.initializer] == [t.name for t in proto.graph.initializer]
    assert [list(t.dims) for t in written.graph.initializer] == [list(t.dims) for t in proto.graph.initializer]


def test_untrained_weights_leave_the_file_as_it_was(tmp_path: Path) -> None:
    proto, _ = perceptron()
    pcgraph.to_onnx(pcgraph.from_onnx(proto), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == proto


def test_copies_of_merged_tensors_become_tensors_of_their_own(tmp_path: Path) -> None:
    written = assert_round_trip(merged(), tmp_path / "out.onnx", torch.randn(6, 4))
    names = [t.name for t in written.graph.initializer]
    assert len(names) == len(set(names)) > 2


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_gates_are_packed_again(kind: type[nn.Module], tmp_path: Path) -> None:
    case = Export(lambda: Recurrent(kind, bidirectional=True), lambda n: (torch.randn(5, n, 5),), 1)
    proto = exported(perturbed(case.make), case, dynamo=False, opset=14)
    assert_round_trip(proto, tmp_path / "out.onnx", *case.inputs(2))


def test_convolutions_and_norms(tmp_path: Path) -> None:
    case = Export(UNet, lambda n: (torch.randn(n, 3, 16, 16),))
    proto = exported(perturbed(case.make), case, dynamo=False, opset=17)
    assert_round_trip(proto.SerializeToString(), tmp_path / "out.onnx", *case.inputs(2))


def test_a_file_and_its_external_data(tmp_path: Path) -> None:
    proto, _ = perceptron()
    source = tmp_path / "net.onnx"
    onnx.save(proto, source, save_as_external_data=True, location="net.data", size_threshold=0)
    assert_round_trip(source, tmp_path / "out.onnx", torch.randn(6, 4))


def test_constants_are_weights_too(tmp_path: Path) -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) {
        w = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
        y = Mul(x, w)
    }"""
    assert_round_trip(model(text), tmp_path / "out.onnx", torch.randn(6, 4))


def test_what_cannot_be_written_back_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OnnxExportError, match="does not come from an ONNX file"):
        pcgraph.to_onnx(nn.Linear(2, 2), tmp_path / "out.onnx")
    text = "g (float[N, 4] x) => (float[N, 3] y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }"
    proto = model(text, q=torch.ones(4, 3, dtype=torch.int8), s=torch.tensor(0.5))
    with pytest.raises(OnnxExportError, match="has no tensor"):
        pcgraph.to_onnx(pcgraph.from_onnx(proto, quantized="dequantize"), tmp_path / "out.onnx")
    path = tmp_path / "net.onnx"
    onnx.save(perceptron()[0], path)
    module = pcgraph.from_onnx(path)
    path.unlink()
    with pytest.raises(OnnxExportError, match="not there any more"):
        pcgraph.to_onnx(module, tmp_path / "out.onnx")


def test_a_file_may_be_written_over_and_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "net.onnx"
    onnx.save(perceptron()[0], source)
    assert_round_trip(source, source, torch.randn(6, 4))
    before = source.read_bytes()
    module = pcgraph.from_onnx(source)
    monkeypatch.setattr(onnx, "save", lambda proto, path: Path(path).write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pcgraph.to_onnx(module, source)
    assert source.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    for path in (tmp_path, tmp_path / "none" / "net.onnx"):
        with pytest.raises(OnnxExportError, match="cannot be written"):
            pcgraph.to_onnx(module, path)


@pytest.mark.parametrize("case", ["BRANCHES", "LOOP"])
def test_weights_inside_of_control_flow(case: str, tmp_path: Path) -> None:
    weights, more = {"w": torch.randn(4, 4) / 3}, torch.tensor(3)
    if case == "BRANCHES":
        weights, more = {**weights, "v": torch.randn(4, 4) / 3, "c": torch.randn(4)}, torch.tensor(True)
    module = pcgraph.from_onnx(model(getattr(test_source, case), **weights))
    network, x = pcgraph.compile(module), torch.randn(5, 4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        output = network(x, more)
        (output[0] if isinstance(output, tuple) else output).square().mean().backward()
        optimizer.step()
    pcgraph.to_onnx(network, tmp_path / "out.onnx")
    with torch.no_grad():
        expected = module(x, more)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(run(tmp_path / "out.onnx", x, more), expected, rtol=1e-5, atol=1e-5)


def test_what_the_body_of_a_schema_adds_is_nobodys_weight(tmp_path: Path) -> None:
    """Attention is expanded into simpler operators, whose constants are in no file."""
    text = """g (float[2, 3, 8] x) => (float[2, 3, 8] y) {
        q = MatMul(x, w)
        y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, x, x)
    }"""
    torch.manual_seed(0)
    proto = model(text, opset=23, w=torch.randn(8, 8))
    module = pcgraph.from_onnx(proto, trainable="all")
    assert [tuple(p.shape) for p in module.parameters()] == [(8, 8)]
    assert {origin.initializer for origin in module.provenance.origins.values()} == {"w"}
    assert_round_trip(proto, tmp_path / "trained.onnx", torch.randn(2, 3, 8))
