"""Which tensors of a file learn."""

from __future__ import annotations

import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

import pcgraph  # noqa: E402
from tests.onnx.build import model  # noqa: E402
from tests.onnx.test_import import parameters  # noqa: E402

ROLES = """g (float[N, 4] x) => (float[N, 4] y) {
    a = Mul(x, scale)
    m = Where(mask, a, filler)
    c = Clip(m, low)
    p = Pow(c, exponent)
    f = Mul(p, factor)
    g = Add(f, infinite)
    y = Max(g, floor)
}"""


def roles() -> onnx.ModelProto:
    return model(
        ROLES,
        scale=torch.rand(4),
        mask=torch.tensor([True, False, True, True]),
        filler=torch.rand(4),
        low=torch.tensor(-1.0),
        exponent=torch.full((4,), 2.0),
        factor=torch.tensor(0.5),
        infinite=torch.tensor([0.0, 0.0, 0.0, float("-inf")]),
        floor=torch.rand(4),
    )


def test_what_is_no_weight_by_nature_does_not_learn() -> None:
    module = pcgraph.from_onnx(roles())
    assert parameters(module) == ["scale"]
    assert {"filler", "infinite", "floor"} <= {name for name, _ in module.named_buffers()}


def test_what_no_gradient_comes_from_does_not_learn() -> None:
    """Numbers of regions, of which a mask is made: shifted windows as the newer exporter writes them."""
    text = """g (float[N, 4] x) => (float[N, 4] y) {
        regions = ScatterND(zeros, rows, numbers)
        two = Constant<value = float {2}>()
        other = Equal(regions, two)
        masked = Where(other, low, high)
        a = Add(x, masked)
        y = Mul(a, scale)
    }"""
    weights = {"zeros": torch.zeros(4), "rows": torch.tensor([[1], [3]]), "numbers": torch.tensor([2.0, 5.0])}
    weights |= {"low": torch.rand(4), "high": torch.rand(4), "scale": torch.rand(4)}
    for trainable in ("auto", "all"):
        module = pcgraph.from_onnx(model(text, **weights), trainable=trainable)
        learning = [name for name, p in module.named_parameters() if p.requires_grad]
        assert learning == [*(["low", "high"] if trainable == "all" else []), "scale"]
    mask = torch.tensor([False, True, False, False])
    expected = weights["scale"] * torch.where(mask, weights["low"], weights["high"])
    assert torch.equal(module(torch.zeros(1, 4)), expected[None])


def test_numbers_of_an_assignment_do_not_learn() -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) {
        a = ScatterND(zeros, rows, three)
        b = ScatterND(a, rows, learned)
        y = Add(x, b)
    }"""
    weights = {"zeros": torch.zeros(4), "rows": torch.tensor([[1], [3]])}
    proto = model(text, **weights, three=torch.full((2,), 3.0), learned=torch.rand(2))
    assert parameters(pcgraph.from_onnx(proto)) == ["zeros", "learned"]
    assert "three" in parameters(pcgraph.from_onnx(proto, trainable="all"))


def test_weights_of_graphs_inside_of_nodes_are_reached() -> None:
    text = """g (float[N, 4] x, bool flag) => (float[N, 4] y) {
        a = MatMul(x, w)
        b = If(flag) <
            then_branch = t () => (float[4] p) { p = Neg(v) },
            else_branch = e () => (float[4] q) { q = Identity(r) }
        >
        y = Add(a, b)
    }"""
    module = pcgraph.from_onnx(model(text, w=torch.randn(4, 4), v=torch.randn(4), r=torch.randn(4)))
    assert sorted(parameters(module)) == ["matmul.weight", "r", "v"]


def test_roles_on_request() -> None:
    everything = parameters(pcgraph.from_onnx(roles(), trainable="all"))
    assert sorted(everything) == ["exponent", "factor", "filler", "floor", "infinite", "low", "scale"]
    assert parameters(pcgraph.from_onnx(roles(), trainable="none")) == []
    seen = {}

    def choose(candidate: object) -> bool:
        seen[candidate.name] = candidate.uses
        return candidate.name == "factor"

    assert parameters(pcgraph.from_onnx(roles(), trainable=choose)) == ["factor"]
    assert seen["filler"] == (("Where", 2),) and "mask" not in seen
