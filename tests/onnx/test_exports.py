"""Models of torch, exported and imported: onnxruntime's outputs, the original's gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")
pytest.importorskip("onnxruntime")

import pcgraph
from tests.onnx.exported_models import LARGE, SMALL, rows
from tests.onnx.exports import Export, exported, round_trip

FORWARD, GRADIENT = 1e-5, 1e-4  # relative: onnxruntime's and fused kernels round differently
OLD, NEW = 17, 20


def check(case: Export, dynamo: bool, opset: int) -> None:
    try:
        outcome = round_trip(case, dynamo, opset)
    except torch.onnx.OnnxExporterError as error:
        pytest.skip(f"torch cannot export it: {error}")
    assert outcome.forward <= FORWARD and outcome.gradient <= GRADIENT, outcome
    if not outcome.missing:  # nothing was fused
        assert outcome.trained[0] == outcome.trained[1]


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name: str) -> None:
    check(SMALL[name], dynamo=False, opset=OLD)


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 11), (False, OLD), (True, NEW), (True, 23)])
def test_every_model(name: str, dynamo: bool, opset: int) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    pytest.importorskip("onnxscript")
    check({**SMALL, **LARGE}[name], dynamo, opset)


def test_a_model_at_initialisation_arrives_untied() -> None:
    """All biases are equal zeros, all scales equal ones, and the exporter writes each of them once."""

    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    net = Norms()
    with torch.no_grad():
        for layer in net.layers:
            layer[0].bias.zero_()
    proto = exported(net.eval(), Export(Norms, rows(4)), dynamo=False, opset=OLD)
    assert len(proto.graph.initializer) < len(list(net.parameters()))
    module = pcgraph.from_onnx(proto)
    assert len(list(module.parameters())) == len(list(net.parameters()))
    x = torch.randn(5, 4)
    torch.testing.assert_close(module(x), net(x))
    for model in (module, net):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(module(x), net(x))
