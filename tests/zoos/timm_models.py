"""timm: of every file of models its smallest member, and of large files one of each kind of network in them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from tests.zoos.specimen import Call, Specimen

# Smallest by number of parameters, counted on the meta device with timm 1.0.31.
MODELS: dict[str, tuple[str, ...]] = {
    "beit": ("beit_base_patch16_224",),
    "byoanet": ("halonet_h1", "eca_botnext26ts_256", "eca_halonext26ts", "lambda_resnet26t"),
    "byobnet": ("test_byobnet", "mobileone_s0", "repvgg_a0", "bat_resnext26ts", "gcresnet33ts"),
    "cait": ("cait_xxs24_224",),
    "coat": ("coat_tiny", "coat_lite_tiny"),
    "convit": ("convit_tiny",),
    "convmixer": ("convmixer_768_32",),
    "convnext": ("test_convnext", "test_convnext2", "test_convnext3", "convnext_zepto_rms", "convnextv2_atto"),
    "cpubone": ("cpubone_nano",),
    "crossvit": ("crossvit_tiny_240", "crossvit_9_dagger_240"),
    "csatv2": ("csatv2",),
    "cspnet": ("cs3darknet_focus_s", "cspresnet50", "darknet17"),
    "cspnext": ("cspnext_tiny",),
    "davit": ("davit_tiny",),
    "deepseek_vit": ("deepseek_vit_412m",),
    "deit": ("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"),
    "densenet": ("densenet121", "densenetblur121d"),
    "dla": ("dla46x_c",),
    "dpn": ("dpn48b", "dpn68"),
    "edgenext": ("edgenext_xx_small",),
    "efficientformer": ("efficientformer_l1",),
    "efficientformer_v2": ("efficientformerv2_s0",),
    "efficientnet": (
        "test_efficientnet",
        "test_efficientnet_gn",
        "test_efficientnet_ln",
        "test_efficientnet_evos",
        "efficientnet_cc_b0_4e",
        "efficientnet_lite0",
        "efficientnetv2_rw_t",
        "fbnetc_100",
        "mixnet_s",
        "mnasnet_small",
        "mobilenetv2_035",
        "spnasnet_100",
        "tinynet_e",
        "tf_efficientnetv2_b0",
    ),
    "efficientvim": ("efficientvim_m1", "efficientvim_m1_dist"),
    "efficientvit_mit": ("efficientvit_b0",),
    "efficientvit_msra": ("efficientvit_m0",),
    "eva": ("eva02_tiny_patch14_224", "vit_tiny_patch16_dinov3_qkvb"),
    "fasternet": ("fasternet_t0",),
    "fastvit": ("fastvit_t8",),
    "focalnet": ("focalnet_tiny_srf",),
    "gcvit": ("gcvit_xxtiny",),
    "gemma4_vit": ("gemma4_vit_167m",),
    "ghostnet": ("ghostnet_050", "ghostnetv2_100", "ghostnetv3_050"),
    "hardcorenas": ("hardcorenas_b",),
    "hgnet": ("hgnetv2_b0", "hgnet_tiny"),
    "hiera": ("hiera_tiny_224",),
    "hieradet_sam2": ("sam2_hiera_tiny", "hieradet_small"),
    "hrnet": ("hrnet_w18_small",),
    "iformer": ("iformer_t",),
    "inception_next": ("inception_next_atto",),
    "inception_resnet_v2": ("inception_resnet_v2",),
    "inception_v3": ("inception_v3",),
    "inception_v4": ("inception_v4",),
    "lcnetv2": ("lcnetv2_small",),
    "levit": ("levit_128s", "levit_conv_128s"),
    "lowformer": ("lowformer_b0",),
    "mambaout": ("test_mambaout", "mambaout_femto"),
    "maxxvit": ("test_coatnet", "test_maxvit", "maxvit_rmlp_pico_rw_256", "coatnext_nano_rw_224"),
    "metaformer": ("poolformer_s12", "poolformerv2_s12", "convformer_s18", "caformer_s18"),
    "mlp_mixer": ("gmlp_ti16_224", "gmixer_12_224", "resmlp_12_224", "mixer_s32_224"),
    "mobilenetv3": (
        "mobilenetv3_small_050",
        "lcnet_035",
        "mobilenetv4_conv_small_035",
        "mobilenetv4_hybrid_medium",
        "fbnetv3_b",
    ),
    "mobilenetv5": ("mobilenetv5_base",),
    "mobilevit": ("mobilevit_xxs", "mobilevitv2_050"),
    "mvitv2": ("mvitv2_tiny",),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", "naflexvit_base_patch16_map"),
    "nasnet": ("nasnetalarge",),
    "nest": ("nest_tiny",),
    "nextvit": ("nextvit_small",),
    "nfnet": ("test_nfnet", "nf_regnet_b0", "nfnet_l0"),
    "pit": ("pit_ti_224", "pit_ti_distilled_224"),
    "pnasnet": ("pnasnet5large",),
    "pvt_v2": ("pvt_v2_b0", "pvt_v2_b2_li"),
    "qwen3_vit": ("qwen3_vit_88m",),
    "rdnet": ("rdnet_tiny",),
    "regnet": ("regnetx_002", "regnety_002", "regnetz_005"),
    "repghost": ("repghostnet_050",),
    "repvit": ("repvit_m1",),
    "res2net": ("res2next50", "res2net50_14w_8s"),
    "resnest": ("resnest14d",),
    "resnet": ("test_resnet", "resnet18", "seresnet18", "ecaresnet26t", "resnetblur18", "resnetrs50"),
    "resnetv2": ("resnetv2_18", "resnetv2_50x1_bit"),
    "rexnet": ("rexnet_100",),
    "selecsls": ("selecsls42",),
    "senet": ("legacy_seresnet18",),
    "sequencer": ("sequencer2d_s",),
    "shvit": ("shvit_s1",),
    "sknet": ("skresnet18",),
    "starnet": ("starnet_s050",),
    "swiftformer": ("swiftformer_xs",),
    "swin_transformer": ("swin_tiny_patch4_window7_224", "swin_s3_tiny_224"),
    "swin_transformer_v2": ("swinv2_tiny_window8_256",),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224",),
    "tiny_vit": ("tiny_vit_5m_224",),
    "tnt": ("tnt_s_patch16_224",),
    "tresnet": ("tresnet_m",),
    "twins": ("twins_svt_small", "twins_pcpvt_small"),
    "vgg": ("vgg11", "vgg11_bn"),
    "visformer": ("visformer_tiny",),
    "vision_transformer": (
        "test_vit",
        "test_vit2",
        "test_vit3",
        "test_vit4",
        "vit_tiny_patch16_224",
        "flexivit_small",
        "vit_small_patch16_18x2_224",
    ),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224",),
    "vision_transformer_relpos": ("test_vit_relpos", "vit_srelpos_small_patch16_224"),
    "vision_transformer_sam": ("samvit_base_patch16_224",),
    "vitamin": ("vitamin_small_224",),
    "volo": ("volo_d1_224",),
    "vovnet": ("ese_vovnet19b_slim_dw", "vovnet39a"),
    "xception": ("xception",),
    "xception_aligned": ("xception41p",),
    "xcit": ("xcit_nano_12_p8_224",),
}
# Where even the smallest member is large.
SMALLER: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": {"depth": 4},
    "deepseek_vit_412m": {"depth": 3},
    "gemma4_vit_167m": {"depth": 3},
    "qwen3_vit_88m": {"depth": 3},
    "samvit_base_patch16_224": {"depth": 4},
}
SIDES = (32, 64, 96, 112, 128, 160, 192, 224, 240, 256, 299, 320, 384, 512, 768)
CLASSES = 10


def specimens() -> Iterator[Specimen]:
    """All of them; and one that returns its feature maps."""
    for names in MODELS.values():
        for name in names:
            yield Specimen("timm", name, functools.partial(_make, name), _feed(name))
    yield Specimen("timm", "test_resnet, features only", _features, _feed("test_resnet"))


def _make(name: str) -> nn.Module:
    import timm

    _, options = fitting(name)
    model: nn.Module = timm.create_model(name, **options)
    return model


def _features() -> nn.Module:
    import timm

    model: nn.Module = timm.create_model("test_resnet", features_only=True)
    return model


def _feed(name: str) -> Callable[[], Call]:
    def feed() -> Call:
        side, _ = fitting(name)
        return (torch.randn(2, 3, side, side),), {}

    return feed


@functools.cache
def fitting(name: str) -> tuple[int, dict[str, Any]]:
    """The smallest image side that the model takes in training, and the options to build it with.

    Raises:
        RuntimeError: it takes none of `SIDES`.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model, options = _with_dropout(name)
        sizeless = _smallest(lambda side: model)
        if sizeless is not None:
            return sizeless, options
        side = _smallest(lambda side: _with_dropout(name, img_size=side)[0])
    if side is None:
        raise RuntimeError(f"{name} takes images of none of the sides {SIDES}")
    return side, {**options, "img_size": side}


def _with_dropout(name: str, **size: int) -> tuple[nn.Module, dict[str, Any]]:
    """The model with as much dropout as it can have, and the options that gave it."""
    import timm

    for drops in ({"drop_rate": 0.1, "drop_path_rate": 0.1}, {"drop_rate": 0.1}, {}):
        options: dict[str, Any] = {"num_classes": CLASSES, **SMALLER.get(name, {}), **drops}
        with contextlib.suppress(TypeError):
            return timm.create_model(name, **options, **size), options
    raise RuntimeError(f"{name} cannot be built with {CLASSES} classes and {size}")


def _smallest(build: Callable[[int], nn.Module]) -> int | None:
    for side in SIDES:
        with contextlib.suppress(Exception):
            build(side).train()(torch.randn(2, 3, side, side))
            return side
    return None
