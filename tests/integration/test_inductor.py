"""Back end `inductor`: as close to float64 as backprop is, with the same buffers and random numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pcgraph
from pcgraph.codegen.inductor import cell
from tests.equality import own_copy
from tests.zoo import ZOO, Case

QUICK = ("mlp", "lenet")


def report_of(case: Case) -> pcgraph.Report:
    model, args, kwargs = case.build()
    enabled = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.set_flags(_enabled=not case.native)
    try:
        return pcgraph.verify(model, args, kwargs, case.loss, rounds=1, backend="inductor")
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ZOO])
def test_every_model_is_close(name: str) -> None:
    report = report_of(ZOO[name])
    assert report.close, str(report)
    random = [c for c in report.comparisons if c.kind == "random state"]
    assert random and all(c.exact for c in random)
