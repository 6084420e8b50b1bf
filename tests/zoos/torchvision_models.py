"""torchvision: image classification, one small member of each family, and the float models for quantisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoos.specimen import Call, Specimen

CLASSES = 10

# Image side in pixels: the smallest that the family takes, or a little more.
CLASSIFICATION: dict[str, int] = {
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 299,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_large": 64,
    "mobilenet_v3_small": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnet50": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_0": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 32,
    "vgg11_bn": 32,
    "vit_b_32": 64,
    "wide_resnet50_2": 64,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": True, "init_weights": True},
    "inception_v3": {"aux_logits": True, "init_weights": True},
    "vit_b_32": {"image_size": 64, "dropout": 0.1, "attention_dropout": 0.1},
    "swin_t": {"dropout": 0.1, "attention_dropout": 0.1},
}
# Members of torchvision.models.quantization, not quantised: quantisation stubs and FloatFunctional stay in them.
QUANTIZABLE: dict[str, int] = {
    "googlenet": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_large": 64,
    "resnet18": 64,
    "resnext101_32x8d": 64,
    "shufflenet_v2_x0_5": 64,
}


def images(side: int, batch: int = 2) -> Callable[[], Call]:
    """A feed of normal random images."""
    return lambda: ((torch.randn(batch, 3, side, side),), {})


def specimens() -> Iterator[Specimen]:
    """All of them."""
    for name, side in CLASSIFICATION.items():
        yield Specimen("torchvision", name, _maker(name, **OPTIONS.get(name, {})), images(side))
    for name, side in QUANTIZABLE.items():
        yield Specimen("torchvision", f"quantization.{name}", _maker(f"quantized_{name}", quantize=False), images(side))


def _maker(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import get_model

        model: nn.Module = get_model(name, weights=None, num_classes=CLASSES, **options)
        return model

    return make
