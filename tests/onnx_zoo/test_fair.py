"""The judge blames the import for what the import does, and for nothing else."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

for package in ("onnx", "onnx_ir", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

import onnx  # noqa: E402

import pcgraph  # noqa: E402
from tests.onnx.build import model  # noqa: E402
from tests.onnx.test_import import merged  # noqa: E402
from tests.onnx_zoo import judge_export, judge_package  # noqa: E402
from tests.onnx_zoo.judgement import WIDE, Judgement, _own_copies, _skeleton  # noqa: E402
from tests.onnx_zoo.row import Row, Status  # noqa: E402
from tests.onnx_zoo.runtime import Runtime, evaluated, outputs  # noqa: E402


def test_a_batch_norm_of_opset_12_is_evaluated() -> None:
    text = "g (float[N, 2, 3] x) => (float[N, 2, 3] y) { y = BatchNormalization<momentum = 0.9>(x, s, s, m, v) }"
    proto = model(text, 12, s=torch.tensor([1.0, 2.0]), m=torch.tensor([3.0, 4.0]), v=torch.tensor([0.5, 2.0]))
    x = torch.randn(4, 2, 3)
    torch.testing.assert_close(evaluated(proto, [x])[0], pcgraph.from_onnx(proto)(x).detach())


@pytest.mark.parametrize("wrong", [False, True])
def test_onnxruntime_is_apart_only_where_the_import_is_right(wrong: bool, tmp_path: Path) -> None:
    """Of the sigmoid of -20, onnxruntime has no digit."""
    path, x = tmp_path / "net.onnx", torch.linspace(-20, -18, 7)
    onnx.save(model("g (float[N] x) => (float[N] y) { y = Sigmoid(x) }"), path)
    trial = Judgement(Row("packages", "net", Status.PASSED), path, lambda stage: None, [])
    mine = [out * (1.1 if wrong else 1.0) for out in outputs(pcgraph.from_onnx(path)(x))]
    far = [torch.full_like(x, 0.5)]
    assert trial._against("forward", path, far if wrong else mine, (x,), Runtime(path)) > 1e-5
    assert len(trial.problems) == 1
    assert bool(trial.alone) is not wrong


def test_a_file_is_told_from_another_one_in_float64(tmp_path: Path) -> None:
    path, x = tmp_path / "net.onnx", torch.linspace(-20, 3, 7)
    onnx.save(model("g (float[N] x) => (float[N] y) { y = Sigmoid(x) }"), path)
    assert judge_export._wide(nn.Sigmoid(), path, (x,)) <= WIDE < judge_export._wide(nn.Tanh(), path, (x,))
    assert math.isnan(judge_export._wide(nn.Linear(3, 3), path, (x,)))  # it fails


def test_a_bias_of_its_own_is_no_other_node(tmp_path: Path) -> None:
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(merged(), before)
    module = pcgraph.from_onnx(before)
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter += k + 1
    pcgraph.to_onnx(module, after)
    own = _own_copies(after, module.provenance)
    assert own and _skeleton(after) != _skeleton(before)
    assert _skeleton(after, own) == _skeleton(before)
    written = onnx.load(after)
    written.graph.node[-1].op_type = "Sub"
    onnx.save(written, after)
    assert _skeleton(after, own) != _skeleton(before)


class Bent(nn.Module):
    """Small beside what does not matter: its logarithm bends within 1e-10 of the size of all parameters."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.small, self.large = nn.Parameter(torch.tensor([1e-6, 3e-6])), nn.Parameter(torch.tensor([1e4]))

    def forward(self, x: Tensor) -> Tensor:
        """The logarithm of a square, and a gradient that is off by the factor."""
        out = (self.small * x).square().log() + 1e-9 * self.large
        return self.factor * out - (self.factor - 1) * out.detach()


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_slopes_tell_right_from_wrong(factor: float) -> None:
    error = judge_package._slope(Bent(factor).double(), (torch.tensor([1.0, 2.0]),))
    assert (error <= judge_package.SLOPE) is (factor == 1)
