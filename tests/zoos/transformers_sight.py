"""transformers: images, videos, and images with text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tests.zoos.specimen import Specimen
from tests.zoos.transformers_small import VOCABULARY, specimen

SIDE = 32
OVERRIDES: dict[str, dict[str, Any]] = {
    "bit": {"embedding_size": 16, "num_groups": 4},
    "cvt": {"embed_dim": [8, 16, 32], "depth": [1, 2, 3], "num_heads": [1, 2, 4]},
    "donut-swin": {"embed_dim": 16, "num_heads": [2] * 4, "patch_size": 2, "window_size": 4, "image_size": 64},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    "focalnet": {"embed_dim": 16, "patch_size": 4},
    "hgnet_v2": {"hidden_sizes": [256, 512, 1024, 2048]},
    "hiera": {"embed_dim": 16, "num_heads": [1, 1, 2, 2], "image_size": [128, 128]},
    "levit": {
        "hidden_sizes": [16, 16, 16],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
        "image_size": 128,
        "patch_size": 16,
    },
    "mobilevit": {
        "hidden_sizes": [16, 16, 16],
        "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
        "patch_size": 2,
        "image_size": 128,
    },
    "mobilevitv2": {"image_size": 128, "patch_size": 2, "expand_ratio": 1.0},
    "pvt": {"hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1]},
    "pvt_v2": {"hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 1, 2, 2]},
    "regnet": {"embedding_size": 16, "groups_width": 8},
    "resnet": {"embedding_size": 16},
    "swin": {"embed_dim": 16, "num_heads": [2] * 4, "patch_size": 2, "window_size": 4, "image_size": 64},
    "swinv2": {"embed_dim": 16, "num_heads": [2] * 4, "patch_size": 2, "window_size": 4, "image_size": 64},
    "textnet": {"hidden_sizes": [64, 64, 128, 256, 512]},
    "vit_msn": {"patch_size": 8},
}
BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16] * 4,
    "depths": [1] * 4,
    "out_features": ["stage4"],
}
DETECTOR = {"backbone_config": BACKBONE, "num_queries": 5}
PERCEIVER = {"num_latents": 8, "d_latents": 32, "num_self_attends_per_block": 2, "num_cross_attention_heads": 4}
SWIN2SR = {"depths": [1, 1], "num_heads": [2, 2], "embed_dim": 16, "patch_size": 1, "window_size": 4}
# Another task's, of several classes, or in need of a further library.
LEFT_OUT = frozenset(
    {"clip", "siglip", "siglip2", "metaclip_2", "timm_wrapper", "perceiver", "shieldgemma2", "imagegpt", "dinat"}
)


def specimens() -> Iterator[Specimen]:
    """Every classifier of images that the library lists, and some models for each other task."""
    from transformers.models.auto import modeling_auto

    for kind, names in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.items():
        name = names if isinstance(names, str) else names[0]
        overrides = OVERRIDES.get(kind, {})
        side = overrides.get("image_size", SIDE)
        if kind not in LEFT_OUT:
            yield specimen(name, kind, _images(side if isinstance(side, int) else side[0]), **overrides)
    yield specimen("PerceiverForImageClassificationLearned", "perceiver", _images(SIDE), **PERCEIVER)
    yield from _pairs()
    yield from _others()


def _pairs() -> Iterator[Specimen]:
    """Towers for images and text, trained by contrast."""
    for name, kind in (
        ("AltCLIPModel", "altclip"),
        ("BlipModel", "blip"),
        ("ChineseCLIPModel", "chinese_clip"),
        ("CLIPModel", "clip"),
        ("GroupViTModel", "groupvit"),
        ("MetaClip2Model", "metaclip_2"),
        ("SiglipModel", "siglip"),
    ):
        yield specimen(name, kind, _captions)
    yield specimen("BlipForConditionalGeneration", "blip", _captioning)
    yield specimen("ViltForQuestionAnswering", "vilt", _questions)
    yield specimen("CLIPSegForImageSegmentation", "clipseg", _prompts, extract_layers=[0, 1], reduce_dim=16)


def _others() -> Iterator[Specimen]:
    """Segmentation, depth, detection, masked images, video."""
    stages = {"num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}
    yield specimen("SegformerForSemanticSegmentation", "segformer", _maps, **stages)
    yield specimen("MobileViTForSemanticSegmentation", "mobilevit", _maps, **OVERRIDES["mobilevit"])
    yield specimen("GLPNForDepthEstimation", "glpn", _images(SIDE, labels=_depths), num_attention_heads=[1, 1, 2, 2])
    yield specimen("ViTForMaskedImageModeling", "vit", _masked(SIDE, 8), encoder_stride=8)
    yield specimen("SwinForMaskedImageModeling", "swin", _masked(64, 2), encoder_stride=16, **OVERRIDES["swin"])
    yield specimen("ViTMAEForPreTraining", "vit_mae", _images(SIDE, labels=None), decoder_num_attention_heads=4)
    yield specimen("YolosForObjectDetection", "yolos", _objects, num_detection_tokens=5, image_size=[SIDE, SIDE])
    yield specimen("DetrForObjectDetection", "detr", _objects, **DETECTOR)
    yield specimen("ConditionalDetrForObjectDetection", "conditional_detr", _objects, **DETECTOR)
    yield specimen("VideoMAEForVideoClassification", "videomae", _clips(4), num_frames=4)
    yield specimen("TimesformerForVideoClassification", "timesformer", _clips(4), num_frames=4)
    yield specimen("VivitForVideoClassification", "vivit", _clips(4), num_frames=4, tubelet_size=[2, 8, 8])
    yield specimen("SuperPointForKeypointDetection", "superpoint", _images(SIDE, labels=None))
    yield specimen("Swin2SRForImageSuperResolution", "swin2sr", _images(SIDE, labels=None), **SWIN2SR)


def _classes() -> Tensor:
    return torch.randint(0, 2, (2,))


def _depths() -> Tensor:
    return torch.rand(2, SIDE, SIDE) + 0.5


def _images(side: int, labels: Callable[[], Tensor] | None = _classes) -> Callable[[], dict[str, Any]]:
    def feed() -> dict[str, Any]:
        images = torch.randn(2, 3, side, side)
        return {"pixel_values": images, **({} if labels is None else {"labels": labels()})}

    return feed


def _clips(frames: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"pixel_values": torch.randn(2, frames, 3, SIDE, SIDE), "labels": _classes()}


def _maps() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": torch.randint(0, 2, (2, SIDE, SIDE))}


def _masked(side: int, patch: int) -> Callable[[], dict[str, Any]]:
    def feed() -> dict[str, Any]:
        hidden = torch.rand(2, (side // patch) ** 2) > 0.5
        return {"pixel_values": torch.randn(2, 3, side, side), "bool_masked_pos": hidden}

    return feed


def _objects() -> dict[str, Any]:
    labels = [{"class_labels": torch.tensor([0, 1]), "boxes": torch.rand(2, 4) * 0.4 + 0.2} for _ in range(2)]
    return {"pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": labels}


def _sentence() -> dict[str, Any]:
    ids = torch.randint(3, VOCABULARY, (2, 8))
    ids[:, -1] = 2  # the end, where CLIP pools
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _captions() -> dict[str, Any]:
    return {**_sentence(), "pixel_values": torch.randn(2, 3, SIDE, SIDE), "return_loss": True}


def _captioning() -> dict[str, Any]:
    sentence = _sentence()
    return {**sentence, "pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": sentence["input_ids"].clone()}


def _questions() -> dict[str, Any]:
    return {**_sentence(), "pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": torch.rand(2, 2)}


def _prompts() -> dict[str, Any]:
    return {**_sentence(), "pixel_values": torch.randn(2, 3, SIDE, SIDE), "labels": torch.rand(2, SIDE, SIDE)}
