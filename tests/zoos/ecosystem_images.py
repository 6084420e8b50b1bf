"""Libraries of images: transformers, diffusion, segmentation, losses of representations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.zoos.ecosystem import Made, Using, images, row


@row("vit-pytorch")
def vit() -> Made:
    from vit_pytorch import ViT

    net = ViT(image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=32, dropout=0.1)
    return net, images()


@row("vit-pytorch")
def simple_vit() -> Made:
    from vit_pytorch import SimpleViT

    return SimpleViT(image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=32), images()


@row("vit-pytorch")
def cait() -> Made:
    from vit_pytorch.cait import CaiT

    net = CaiT(
        image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, cls_depth=1, heads=2, mlp_dim=32,
        layer_dropout=0.2,
    )  # fmt: skip
    return net, images()


@row("vit-pytorch")
def na_vit() -> Made:
    from vit_pytorch.na_vit import NaViT

    net = NaViT(
        image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=32, token_dropout_prob=0.1
    )
    return net, lambda n: ([[torch.randn(3, 16, 32), torch.randn(3, 32, 16)] for _ in range(n)],)


@row("vit-pytorch")
def mae() -> Made:
    from vit_pytorch import MAE, ViT

    net = ViT(image_size=32, patch_size=8, num_classes=5, dim=16, depth=1, heads=2, mlp_dim=32, pool="mean")
    return MAE(encoder=net, masking_ratio=0.5, decoder_dim=16, decoder_depth=1, decoder_heads=2), images()


@row("vit-pytorch")
def max_vit() -> Made:
    from vit_pytorch.max_vit import MaxViT

    net = MaxViT(num_classes=5, dim_conv_stem=8, dim=8, dim_head=4, depth=(1, 1), window_size=2, dropout=0.1)
    return net, images()


@row("kornia")
def kornia_augmented() -> Made:
    import kornia

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = kornia.filters.gaussian_blur2d(self.conv(x), (3, 3), (1.0, 1.0))
            y = kornia.filters.spatial_gradient(y).square().sum(2)
            turned = kornia.geometry.transform.rotate(y, torch.full((len(x),), 30.0, dtype=x.dtype))
            return self.head(turned.mean((2, 3)))

    return Net(), images(3, 16)


@row("diffusers")
def unet2d() -> Made:
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, dropout=0.1,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 3, 16, 16), torch.randint(100, (n,)))


@row("diffusers")
def unet2d_condition() -> Made:
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 4, 16, 16), torch.randint(100, (n,)), torch.randn(n, 5, 8))


@row("diffusers")
def autoencoder_kl() -> Made:
    from diffusers import AutoencoderKL

    net = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=2,
    )  # fmt: skip
    return Using(net, lambda net, x: net(x, sample_posterior=True).sample), images(3, 16)


@row("diffusers")
def vq_model() -> Made:
    from diffusers import VQModel

    net = VQModel(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=2, num_vq_embeddings=8, sample_size=16,
    )  # fmt: skip
    return net, images(3, 16)


@row("diffusers")
def dit() -> Made:
    from diffusers import DiTTransformer2DModel

    net = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=2, num_layers=2, sample_size=8, patch_size=2,
        norm_num_groups=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    return net, lambda n: {
        "hidden_states": torch.randn(n, 2, 8, 8),
        "timestep": torch.randint(10, (n,)),
        "class_labels": torch.randint(10, (n,)),
    }


@row("diffusers")
def flux() -> Made:
    from diffusers import FluxTransformer2DModel

    net = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return net, lambda n: {
        "hidden_states": torch.randn(n, 16, 4),
        "encoder_hidden_states": torch.randn(n, 6, 8),
        "pooled_projections": torch.randn(n, 8),
        "timestep": torch.rand(n),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(6, 3),
    }


@row("denoising-diffusion-pytorch")
def gaussian_diffusion() -> Made:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    net = Unet(dim=8, dim_mults=(1, 2), flash_attn=False, attn_dim_head=4, attn_heads=2)
    return GaussianDiffusion(net, image_size=16, timesteps=20), images(3, 16)


@row("segmentation-models-pytorch")
def segmentation_unet() -> Made:
    import segmentation_models_pytorch as smp

    net = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 8), classes=2)
    return net, images()


@row("segmentation-models-pytorch")
def segmentation_fpn() -> Made:
    import segmentation_models_pytorch as smp

    net = smp.FPN("mobilenet_v2", encoder_weights=None, decoder_pyramid_channels=16, decoder_segmentation_channels=32)
    loss = smp.losses.DiceLoss("binary")
    return Using(net, lambda net, x, y: loss(net(x), y)), lambda n: (
        torch.randn(n, 3, 64, 64),
        torch.randint(2, (n, 1, 64, 64)),
    )


@row("monai")
def monai_unet() -> Made:
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    net = UNet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1, dropout=0.1)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    return Using(net, lambda net, x, y: loss(net(x), y)), lambda n: (
        torch.randn(n, 1, 8, 8, 8),
        torch.randint(2, (n, 1, 8, 8, 8)),
    )


@row("monai")
def swin_unetr() -> Made:
    from monai.networks.nets import SwinUNETR

    net = SwinUNETR(
        in_channels=1, out_channels=2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)
    )
    return net, images(1, 64)


@row("monai")
def unetr() -> Made:
    from monai.networks.nets import UNETR

    net = UNETR(1, 2, img_size=(16, 16), feature_size=4, hidden_size=16, mlp_dim=32, num_heads=2, spatial_dims=2)
    return net, images(1, 16)


@row("open-clip-torch")
def clip() -> Made:
    from open_clip import CLIP, ClipLoss

    net = CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
        text_cfg={"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
    )
    loss = ClipLoss()
    return Using(net, lambda net, x, y: loss(*net(x, y))), lambda n: (
        torch.randn(n, 3, 16, 16),
        torch.randint(50, (n, 8)),
    )


@row("lightly")
def ntxent() -> Made:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    net, loss = SimCLRProjectionHead(8, 8, 4), NTXentLoss()
    return Using(net, lambda net, x, y: loss(net(x), net(y))), lambda n: (torch.randn(n, 8), torch.randn(n, 8))


@row("lightly")
def barlow_twins() -> Made:
    from lightly.loss import BarlowTwinsLoss, VICRegLoss
    from lightly.models.modules import BarlowTwinsProjectionHead

    net, one, two = BarlowTwinsProjectionHead(8, 8, 4), BarlowTwinsLoss(), VICRegLoss()

    def call(net: Any, x: Tensor, y: Tensor) -> Tensor:
        a, b = net(x), net(y)
        return one(a, b) + two(a, b)

    return Using(net, call), lambda n: (torch.randn(n, 8), torch.randn(n, 8))


@row("pytorch-metric-learning")
def metric_losses() -> Made:
    from pytorch_metric_learning import losses

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.one = nn.Linear(8, 4), losses.ArcFaceLoss(3, 4)
            self.two, self.three = losses.TripletMarginLoss(), losses.NTXentLoss()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            z = self.net(x)
            return self.one(z, y) + self.two(z, y) + self.three(z, y)

    return Net(), lambda n: (torch.randn(2 * n + 2, 8), torch.arange(2 * n + 2) % 3)
