"""A few models of each library that is installed: they train bitwise, or as the row says."""

from __future__ import annotations

import pytest

from tests.zoos.judge import judge
from tests.zoos.libraries import specimens
from tests.zoos.row import Status

SAMPLE = (
    ("torchvision", "mobilenet_v3_small"),
    ("torchvision", "shufflenet_v2_x0_5"),
    ("torchvision", "ops"),
    ("timm", "test_byobnet"),
    ("timm", "test_convnext2"),
    ("timm", "test_vit"),
    ("transformers", "BertForMaskedLM"),
    ("transformers", "GPT2LMHeadModel"),
    ("transformers", "T5ForConditionalGeneration"),
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), SAMPLE)
def test_bitwise(library: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip(library)
    row = judge(specimens(library)[name])
    assert row.status is Status.BITWISE, f"{row.message}\n{row.traceback}"
    assert row.moving > 0.9, "most gradients are zero, so that little was compared"
