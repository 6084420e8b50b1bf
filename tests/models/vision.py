"""Convolutional networks, narrow but with the structure of the real ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import WIDE, Made, Registry

MODELS = Registry()


def image(batch: int, channels: int, size: int) -> Tensor:
    return torch.randn(batch, channels, size, size)


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 8, 5)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU()
        self.fc1, self.fc2, self.fc3 = nn.Linear(200, 30), nn.Linear(30, 20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        return self.fc3(self.relu(self.fc2(self.relu(self.fc1(x)))))


@MODELS.case()
def lenet() -> Made:
    return LeNet(), (image(4, 1, 28),)


class AlexNet(nn.Module):
    """AlexNet for 32x32 images, an eighth as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(8, 24, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(32, 24, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(96, 64), nn.ReLU(inplace=True),
            nn.Dropout(0.5), nn.Linear(64, 32), nn.ReLU(inplace=True), nn.Linear(32, 10),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


@MODELS.case()
def alexnet_dropout() -> Made:
    return AlexNet(), (image(4, 3, 32),)


@MODELS.case()
def vgg_batch_norm() -> Made:
    layers: list[nn.Module] = []
    channels = 3
    for width in (4, 0, 8, 0, 12, 12, 0, 16, 16, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 10)]
    return nn.Sequential(*layers), (image(4, 3, 32),)


class BasicBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.downsample is not None:
            identity = self.downsample(x)
        y += identity
        return self.relu(y)


class ResNet18(nn.Module):
    """ResNet-18 for CIFAR: 3x3 stem, four stages of two blocks; `width` 64 is the real one."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        blocks, inside = [], width
        for stage in range(4):
            outside = width * 2**stage
            blocks += [BasicBlock(inside, outside, 1 if stage == 0 else 2), BasicBlock(outside, outside, 1)]
            inside = outside
        self.layers, self.pool, self.fc = nn.Sequential(*blocks), nn.AdaptiveAvgPool2d(1), nn.Linear(inside, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.pool(x), 1))


@MODELS.case()
def resnet18() -> Made:
    return ResNet18(), (image(4, 3, 32),)


@MODELS.case(train=False)
def resnet18_eval() -> Made:
    """Batch norm normalises by its running statistics and leaves them alone."""
    model = ResNet18(4)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model, (image(4, 3, 16),)


class PartlyEval(nn.Module):
    """Fine-tuning: the trunk's batch norm stays in eval mode while the model trains."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.head = nn.Sequential(
            nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )

    def train(self, mode: bool = True) -> PartlyEval:
        super().train(mode)
        self.trunk.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


@MODELS.case()
def batch_norm_partly_eval() -> Made:
    return PartlyEval(), (image(4, 3, 12),)


class DenseNet(nn.Module):
    """Two dense blocks: each layer reads the concatenation of a growing list."""

    def __init__(self, growth: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        channels = 8
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for _ in range(2):
            block = nn.ModuleList()
            for _ in range(layers):
                conv = nn.Conv2d(channels, growth, 3, padding=1, bias=False)
                block.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True), conv))
                channels += growth
            self.blocks.append(block)
            shrink = nn.Conv2d(channels, channels // 2, 1, bias=False)
            self.transitions.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), shrink, nn.AvgPool2d(2)))
            channels //= 2
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, transition in zip(self.blocks, self.transitions, strict=True):
            features = [x]
            assert isinstance(block, nn.ModuleList)
            for layer in block:
                features.append(layer(torch.cat(features, 1)))
            x = transition(torch.cat(features, 1))
        return self.head(x.mean((2, 3)))


@MODELS.case()
def densenet() -> Made:
    return DenseNet(), (image(3, 3, 16),)


def twice(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True),
        nn.Conv2d(outside, outside, 3, padding=1), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """Long skips: the first encoder stage is read again just before the output."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        widths = (4, 8, 16)
        self.down = nn.ModuleList([twice(2, 4), twice(4, 8), twice(8, 16)])
        self.bottom = twice(16, 32)
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for width in reversed(widths):
            if transposed:
                self.up.append(nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            else:
                scale = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
                self.up.append(nn.Sequential(scale, nn.Conv2d(2 * width, width, 1)))
            self.merge.append(twice(2 * width, width))
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], dim=1))
        return self.out(x)


@MODELS.case()
def unet_transposed() -> Made:
    return UNet(True), (image(2, 2, 16),)


@MODELS.case()
def unet_upsample() -> Made:
    return UNet(False), (image(2, 2, 16),)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)), inplace=True)))


class InvertedResidual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 3 * width
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.Hardswish(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner),
            SqueezeExcite(inner), nn.Hardswish(inplace=True),
            nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@MODELS.case()
def mobilenet() -> Made:
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
    model = nn.Sequential(
        stem, InvertedResidual(8), InvertedResidual(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    return model, (image(3, 3, 16),)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, channels last through LayerNorm and two linears, a layer scale parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.layer_scale = nn.Parameter(0.1 * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.layer_scale * self.down(F.gelu(self.up(self.norm(y))))
        return x + y.permute(0, 3, 1, 2)


@MODELS.case()
def convnext() -> Made:
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8), ConvNeXtBlock(8), nn.Conv2d(8, 4, 2)), (
        image(3, 3, 16),
    )


@MODELS.case()
def group_norm() -> Made:
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GroupNorm(1, 8)
    )
    return body, (image(3, 3, 10),)


@MODELS.case()
def instance_norm() -> Made:
    norm = nn.InstanceNorm2d(6, affine=True, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 4, 3), nn.InstanceNorm2d(4)), (
        image(3, 3, 10),
    )


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 3, 1)
        self.three = nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1))
        self.dilated = nn.Conv2d(4, 2, 3, padding=2, dilation=2)
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.dilated(x), self.pooled(x)], 1)


@MODELS.case()
def inception() -> Made:
    pools = [nn.AvgPool2d(2, count_include_pad=False), nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(44, 3)]
    return nn.Sequential(nn.Conv2d(3, 4, 3), Inception(), nn.ReLU(), *pools), (image(3, 3, 12),)


class ShuffleUnit(nn.Module):
    """Half of the channels pass by; then the channels are shuffled through views."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1, groups=half)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], 1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)


@MODELS.case()
def shufflenet() -> Made:
    return nn.Sequential(nn.Conv2d(3, 8, 3), ShuffleUnit(8), ShuffleUnit(8), nn.Dropout2d(0.3), nn.Conv2d(8, 2, 3)), (
        image(3, 3, 10),
    )


@MODELS.case()
def conv1d() -> Made:
    layers = [
        nn.Conv1d(3, 6, 5, padding=2),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(6, 6, 3, dilation=2),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4)), (torch.randn(4, 3, 20),)


@MODELS.case()
def conv3d() -> Made:
    layers = [nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 4, 2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 3)), (torch.randn(2, 2, 6, 6, 6),)


@MODELS.case()
def channels_last() -> Made:
    """Another memory format in: sums run over other strides, so they round differently.

    Narrower than eight channels, torch 2.13's own backward of a strided 1x1 convolution corrupts the heap here.
    """
    model = ResNet18(8)
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model, (image(2, 3, 16).contiguous(memory_format=torch.channels_last),)


class SpatialTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.localise = nn.Linear(3 * 64, 6)
        nn.init.normal_(self.localise.weight, std=0.01)
        self.localise.bias.data.copy_(torch.tensor([0.9, 0.1, 0, -0.1, 0.8, 0]))
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.localise(x.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return self.conv(F.grid_sample(x, grid, align_corners=False))


@MODELS.case(dtypes=WIDE)
def spatial_transformer() -> Made:
    return SpatialTransformer(), (image(3, 3, 8),)


class SuperResolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")
        self.norm = nn.LocalResponseNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_shuffle(self.conv2(self.norm(torch.relu(self.conv1(x)))), 2)
        return y + F.interpolate(x, scale_factor=2, mode="nearest")


@MODELS.case(dtypes=WIDE)
def super_resolution() -> Made:
    return SuperResolution(), (image(2, 1, 8),)
