"""Every parameter goes back to its own place, however many graphs, copies and equal names a file has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")
onnxruntime = pytest.importorskip("onnxruntime")

import pcgraph  # noqa: E402
from pcgraph import OnnxExportError  # noqa: E402
from tests.onnx.build import model  # noqa: E402

ONES, X = torch.ones(4), torch.linspace(-1, 2, 12).reshape(3, 4)
BRANCHES = """g (float[N, 4] x, bool flag) => (float[N, 4] y) {
    a = Mul(x, w)
    y = If(flag) <
        then_branch = t () => (float[N, 4] p) { p = Add(a, w) },
        else_branch = e () => (float[N, 4] q) { q = Sub(a, w) }
    >
}"""
SIBLINGS = """g (float[N, 4] x, bool flag) => (float[N, 4] y) {
    y = If(flag) <
        then_branch = t () => (float[N, 4] p) { p = Mul(x, w) },
        else_branch = e () => (float[N, 4] p) {
            c = Constant<value = float[4] {1., 2., 3., 4.}>()
            d = Add(x, w)
            p = Mul(d, c)
        }
    >
}"""
INLINED = """g (float[N, 4] x) => (float[N, 4] y) {
    c = Constant<value = bool {1}>()
    a = Mul(x, w)
    y = If(c) <
        then_branch = t () => (float[N, 4] p) { p = Add(a, w) },
        else_branch = e () => (float[N, 4] p) { p = Sub(a, w) }
    >
}"""
LOOP = """g (float[N, 4] x, int64 n) => (float[N, 4] y) {
    a = Mul(x, w)
    e = Add(a, w)
    y = Loop(n, , e) <body = b (int64 i, bool c, float[N, 4] v) => (bool d, float[N, 4] z) {
        d = Identity(c)
        z = Mul(v, w)
    }>
}"""

IDENTITIES = """g (float[N, 4] x) => (float[N, 4] y) {
    i = Identity(w)
    j = Identity(i)
    a = Mul(x, i)
    b = Add(a, j)
    y = Sub(b, i)
}"""


def siblings() -> onnx.ModelProto:
    """Two branches, each with an initializer of the same name."""
    proto = model(SIBLINGS)
    for k, attribute in enumerate(proto.graph.node[0].attribute):
        attribute.g.initializer.append(onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32) + k, "w"))
    return proto


def packed() -> onnx.ModelProto:
    """Two LSTMs whose biases, all zeros, are one tensor."""
    text = """g (float[5, 2, 3] x) => (float[5, 1, 2, 3] y) {
        h = LSTM<hidden_size = 3>(x, w, r, b)
        s = Squeeze(h, axis)
        y = LSTM<hidden_size = 3>(s, v, r, b)
    }"""
    torch.manual_seed(0)
    weights = {"w": torch.randn(1, 12, 3), "v": torch.randn(1, 12, 3), "r": torch.randn(1, 12, 3)}
    return model(text, **weights, b=torch.zeros(1, 24), axis=torch.tensor([1]))


def norms() -> onnx.ModelProto:
    """Two batch norms at initialisation: the scales and variances are one tensor, the biases and means another one."""
    text = """g (float[N, 3, 4] x) => (float[N, 3, 4] y) {
        v = Identity(ones)
        a = BatchNormalization(x, ones, zeros, zeros, v)
        s = Sigmoid(a)
        y = BatchNormalization(s, ones, zeros, zeros, ones)
    }"""
    return model(text, 15, ones=torch.ones(3), zeros=torch.zeros(3))


def rotated() -> onnx.ModelProto:
    """An operator that is expanded into others, an Identity of its operand among them."""
    text = "g (float[1, 2, 3, 8] x) => (float[1, 2, 3, 8] y) { y = RotaryEmbedding(x, c, s) }"
    torch.manual_seed(0)
    return model(text, 23, c=torch.randn(1, 3, 4), s=torch.randn(1, 3, 4))


def used(text: str) -> onnx.ModelProto:
    return model(text, w=ONES)


CASES = {
    "a capture": (used(BRANCHES), (X, torch.tensor(True))),
    "the other capture": (used(BRANCHES), (X, torch.tensor(False))),
    "one name in two branches, then": (siblings(), (X, torch.tensor(True))),
    "one name in two branches, else": (siblings(), (X, torch.tensor(False))),
    "one name in two branches, inlined": (used(INLINED), (X,)),
    "a loop": (used(LOOP), (X, torch.tensor(2))),
    "an output": (used("g (float[N, 4] x) => (float[N, 4] y, float[4] w) { a = Mul(x, w) y = Add(a, w) }"), (X,)),
    "identities": (used(IDENTITIES), (X,)),
    "what batch norms share": (norms(), (torch.linspace(-1, 1, 24).reshape(2, 3, 4),)),
    "an operator made of others": (rotated(), (torch.linspace(-1, 1, 48).reshape(1, 2, 3, 8),)),
    "pieces": (packed(), (torch.linspace(-1, 1, 30).reshape(5, 2, 3),)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_moved_apart_is_written_apart(name: str, tmp_path: Path) -> None:
    proto, args = CASES[name]
    module, path = pcgraph.from_onnx(proto), tmp_path / "out.onnx"
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)
    pcgraph.to_onnx(module, path)
    onnx.checker.check_model(path, full_check=True)
    expected = module(*args)
    expected = expected if isinstance(expected, tuple) else (expected,)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {value.name: arg.numpy() for value, arg in zip(session.get_inputs(), args, strict=True)}
    for mine, theirs in zip(expected, session.run(None, given), strict=True):
        torch.testing.assert_close(torch.from_numpy(np.asarray(theirs)), mine.detach())


def test_batch_norms_that_share_learn_and_keep_statistics_of_their_own(tmp_path: Path) -> None:
    torch.manual_seed(2)
    x, path = torch.randn(5, 3, 4), tmp_path / "out.onnx"
    module = pcgraph.from_onnx(norms())
    assert sum(p.requires_grad for p in module.parameters()) == 4
    network = pcgraph.compile(module.train())
    network(x).square().mean().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter -= parameter.grad
    expected = module.eval()(x).detach()
    pcgraph.to_onnx(module, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    torch.testing.assert_close(torch.from_numpy(np.asarray(session.run(None, {"x": x.numpy()})[0])), expected)


def test_what_was_frozen_and_thawed_goes_back_to_its_own_operand(tmp_path: Path) -> None:
    """The product of the two is a constant in the module and stays one in the file."""
    text = (
        "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, w) b = MatMul(a, w) c = MatMul(w, w) y = MatMul(b, c) }"
    )
    module, path = pcgraph.from_onnx(model(text, w=torch.randn(4, 4)), trainable="none"), tmp_path / "out.onnx"
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)
    pcgraph.to_onnx(module, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    torch.testing.assert_close(torch.from_numpy(np.asarray(session.run(None, {"x": X.numpy()})[0])), module(X).detach())


def test_a_copy_that_stayed_keeps_what_it_was(tmp_path: Path) -> None:
    """Only the first of two uses of one tensor has learned."""
    module = pcgraph.from_onnx(used("g (float[N, 4] x) => (float[N, 4] y) { t = Neg(w) a = Mul(x, w) y = Add(a, t) }"))
    for name, origin in module.provenance.origins.items():
        if origin.use is None:
            torch.nn.init.constant_(module.get_parameter(name), 3.0)
    pcgraph.to_onnx(module, tmp_path / "out.onnx")
    assert torch.equal(pcgraph.from_onnx(tmp_path / "out.onnx")(X), module(X))


def test_what_has_no_place_of_its_own_is_refused(tmp_path: Path) -> None:
    proto = used("g (float[N, 4] x) => (float[N, 4] y) { a = Mul(x, w) y = Add(a, w) }")
    module = pcgraph.from_onnx(proto, untie="none")
    del module.w
    module.w = torch.nn.Parameter(torch.full((4,), 2.0))
    module.provenance.origins["other"] = module.provenance.origins["w"]  # type: ignore[index]
    module.other = torch.nn.Parameter(torch.full((4,), 3.0))
    with pytest.raises(OnnxExportError, match="and another one that differs are both the tensor 'w'"):
        pcgraph.to_onnx(module, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
