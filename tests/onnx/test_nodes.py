"""A sample of onnx's own node tests; `python -m tests.onnx` runs them all."""

from __future__ import annotations

import importlib
import warnings

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

from tests.onnx.cases import OnnxCase, case_of, file_cases, in_scope, node_cases
from tests.onnx.exceptions import EXCEPTIONS
from tests.onnx.judge import Result, Role, judge

# Modules of onnx.backend.test.case.node, each a family of operators.
FAMILIES = (
    "batch_normalization clip concat conv convtranspose einsum expand gather gathernd gelu gemm "
    "groupnormalization gru hardswish instance_normalization layernormalization logsoftmax lstm matmul maxpool pow "
    "prelu reducemean resize rmsnormalization rnn scatterelements slice softmax split squeeze tile topk transpose where"
).split()


def sample(family: str) -> list[OnnxCase]:
    """The first and the last case of a family, made by importing its module."""
    from onnx.backend.test.case.node import _NodeTestCases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"onnx.backend.test.case.node.{family}")
    wanted = family.replace("_", "")
    found = [t for t in _NodeTestCases if "expanded" not in t.name and in_scope(t.model, t.name)]
    found = [t for t in found if t.model.graph.node[0].op_type.lower() == wanted]
    return [case_of(test) for test in (found[0], found[-1])]


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str) -> None:
    cases = sample(family)
    assert cases
    verdicts = [judge(case, Role.PARAMETERS) for case in cases]
    assert [v for v in verdicts if v.result is not Result.PASSED and v.name not in EXCEPTIONS] == []
    assert any(v.learns for v in verdicts)


def test_cases_that_lie_in_files() -> None:
    cases = [case for kind in ("simple", "pytorch-operator") for case in file_cases(kind)]
    verdicts = [judge(case, Role.INPUTS, gradients=False) for case in cases]
    wrong = [v for v in verdicts if v.result is not Result.PASSED and v.name not in EXCEPTIONS]
    assert wrong == [] and len(cases) > 50


@pytest.mark.wide
@pytest.mark.slow
@pytest.mark.parametrize("role", list(Role))
def test_every_node_case(role: Role) -> None:
    wrong = [v for case in node_cases() if (v := judge(case, role)).result is not Result.PASSED]
    assert {v.name for v in wrong} <= set(EXCEPTIONS), wrong
