"""torchvision: segmentation, detection with targets, video, optical flow, and the operators of detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoos.specimen import Call, Loss, Specimen, own_loss, sum_of_losses
from tests.zoos.torchvision_models import images

CLASSES = 5
SEGMENTATION = (
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "fcn_resnet50",
    "lraspp_mobilenet_v3_large",
)
SMALL = {"min_size": 64, "max_size": 96}
DETECTION: dict[str, dict[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": SMALL,
    "fasterrcnn_resnet50_fpn": SMALL,
    "fasterrcnn_resnet50_fpn_v2": SMALL,
    "fcos_resnet50_fpn": SMALL,
    "keypointrcnn_resnet50_fpn": {**SMALL, "num_classes": 2, "num_keypoints": 3},
    "maskrcnn_resnet50_fpn": SMALL,
    "retinanet_resnet50_fpn": SMALL,
    "retinanet_resnet50_fpn_v2": SMALL,
    "ssd300_vgg16": {},
    "ssdlite320_mobilenet_v3_large": {},
}
# Frames and image side.
VIDEO: dict[str, tuple[int, int]] = {
    "mc3_18": (4, 32),
    "r2plus1d_18": (4, 32),
    "r3d_18": (4, 32),
    "s3d": (16, 224),
    "swin3d_t": (4, 32),
}


def specimens() -> Iterator[Specimen]:
    """All of them."""
    for name in SEGMENTATION:
        aux = {} if name.startswith("lraspp") else {"aux_loss": True}
        yield _specimen(name, images(64), num_classes=CLASSES, weights_backbone=None, **aux)
    for name, options in DETECTION.items():
        yield _specimen(
            name,
            _targets(name),
            sum_of_losses,
            **{"num_classes": CLASSES, "weights_backbone": None, **options},
        )
    for name, (frames, side) in VIDEO.items():
        yield _specimen(name, _clips(frames, side), num_classes=CLASSES)
    yield Specimen("torchvision", "mvit_small", _mvit, _clips(4, 32))
    yield _specimen("raft_small", _pairs)
    yield Specimen("torchvision", "ops", _Operators, lambda: ((torch.randn(2, 4, 16, 16),), {}))
    for name in ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool"):
        yield Specimen("torchvision", f"ops.{name}", partial(_Pooling, name), images(16))


def _specimen(name: str, feed: Callable[[], Call], loss: Loss = own_loss, **options: Any) -> Specimen:
    def make() -> nn.Module:
        from torchvision.models import get_model

        model: nn.Module = get_model(name, weights=None, **options)
        return model

    return Specimen("torchvision", name, make, feed, loss)


def _targets(name: str) -> Callable[[], Call]:
    """Two images with two objects each: boxes, labels, and masks or keypoints where the detector wants them."""

    def feed() -> Call:
        corners = torch.rand(2, 2, 2) * 24
        boxes = torch.cat([corners, corners + 16 + torch.rand(2, 2, 2) * 20], dim=2)
        targets: list[dict[str, Tensor]] = []
        for mine in boxes:
            target = {"boxes": mine, "labels": torch.tensor([1, 1 if "keypoint" in name else 2])}
            if "mask" in name:
                target["masks"] = (torch.rand(2, 64, 64) > 0.5).to(torch.uint8)
            if "keypoint" in name:
                inside = mine[:, None, :2] + torch.rand(2, 3, 2) * 16
                target["keypoints"] = torch.cat([inside, torch.ones(2, 3, 1)], dim=2)
            targets.append(target)
        return ([torch.rand(3, 64, 64), torch.rand(3, 64, 72)], targets), {}

    return feed


def _clips(frames: int, side: int) -> Callable[[], Call]:
    return lambda: ((torch.randn(2, 3, frames, side, side),), {})


def _pairs() -> Call:
    first, second = (torch.rand(1, 3, 128, 128) * 2 - 1 for _ in range(2))
    return (first, second), {"num_flow_updates": 2}


def _mvit() -> nn.Module:
    """A narrow MViT: the library's own members take clips of one size only."""
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    def block(inside: int, outside: int, heads: int, stride: int) -> MSBlockConfig:
        return MSBlockConfig(
            num_heads=heads,
            input_channels=inside,
            output_channels=outside,
            kernel_q=[3, 3, 3],
            kernel_kv=[3, 3, 3],
            stride_q=[1, stride, stride],
            stride_kv=[1, 2, 2],
        )

    model: nn.Module = MViT(
        spatial_size=(32, 32),
        temporal_size=4,
        block_setting=[block(16, 16, 1, 1), block(16, 32, 2, 2)],
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        dropout=0.1,
        stochastic_depth_prob=0.2,
        num_classes=CLASSES,
    )
    return model


class _Operators(nn.Module):
    """Deformable convolution, drop block, stochastic depth, squeeze and excitation, and losses of boxes."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision import ops

        self.offsets = nn.Conv2d(4, 2 * 9, 3, padding=1)
        self.deform = ops.DeformConv2d(4, 8, 3, padding=1)
        self.block = ops.DropBlock2d(0.2, 3)
        self.depth = ops.StochasticDepth(0.3, "row")
        self.squeeze = ops.SqueezeExcitation(8, 16)
        self.frozen = ops.FrozenBatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        from torchvision import ops

        y = self.frozen(self.deform(x, self.offsets(x)))
        y = y + self.depth(self.squeeze(self.block(y)))
        boxes = x.new_tensor([[1, 1, 9, 9], [3, 2, 15, 12]])
        found = self.head(y.mean((2, 3))).exp().cumsum(1)
        loss = ops.generalized_box_iou_loss(found, boxes, reduction="sum")
        loss = loss + ops.complete_box_iou_loss(found, boxes, reduction="sum")
        return y, loss + ops.sigmoid_focal_loss(found.log(), (boxes > 5).to(x.dtype), reduction="mean")


class _Pooling(nn.Module):
    """One way of pooling regions of an image; the first column of the boxes is the number of the image."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.features = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        from torchvision import ops

        boxes = x.new_tensor([[0, 1, 1, 9, 9], [1, 3, 2, 15, 12]])
        pooled: Tensor = getattr(ops, self.name)(self.features(x), boxes, 2)
        return pooled
