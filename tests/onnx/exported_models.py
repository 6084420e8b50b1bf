"""The torch models that are sent through torch's exporters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.onnx.exports import Export, Recurrent, UNet


def _seeded(size: int) -> torch.Generator:
    return torch.Generator().manual_seed(size)


def rows(*shape: int) -> Any:
    """Inputs [N, *shape] of normal numbers."""
    return lambda n: (torch.randn(n, *shape, generator=_seeded(n)),)


def tokens(length: int, vocabulary: int) -> Any:
    """Inputs [N, length] of whole numbers."""
    return lambda n: (torch.randint(vocabulary, (n, length), generator=_seeded(n)),)


def sequence(n: int) -> tuple[torch.Tensor, ...]:
    """Inputs [7, N, 5]."""
    return (torch.randn(7, n, 5, generator=_seeded(n)),)


class Hidden(nn.Module):
    """The first output of a transformers model, from tokens alone."""

    def __init__(self, model: nn.Module, **options: Any) -> None:
        super().__init__()
        self.model, self.options = model, options

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=ids, **self.options)[0]


def bert() -> nn.Module:
    """A small BERT. `padding_idx` is no part of a file: without it, so that row 0 has the same gradient."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=50, max_position_embeddings=16, attn_implementation="eager", **sizes)
    model = BertModel(config, add_pooling_layer=False)
    model.embeddings.word_embeddings.padding_idx = None
    return Hidden(model)


def gpt2() -> nn.Module:
    """A small GPT-2 without its head, which exporters untie."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=16, attn_implementation="eager")
    return Hidden(GPT2Model(config), use_cache=False)


def encoder() -> nn.Module:
    """Two layers of torch's own transformer encoder."""
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False)


def vit() -> nn.Module:
    """A small vision transformer."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=10)


def torchvision(name: str) -> Any:
    """A model of torchvision, by its name."""

    def make() -> nn.Module:
        import torchvision

        return getattr(torchvision.models, name)()

    return make


def mixer() -> nn.Module:
    """An MLP mixer of timm."""
    import timm

    return timm.create_model("mixer_s32_224", num_classes=10)


def mlp() -> nn.Module:
    """Two linear layers and a norm."""
    return nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))


SMALL = {
    "MLP": Export(mlp, rows(5)),
    "LSTM": Export(lambda: Recurrent(nn.LSTM), sequence, 1),
    "LSTM, 2 layers, bidirectional": Export(lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), sequence, 1),
    "GRU": Export(lambda: Recurrent(nn.GRU), sequence, 1),
    "RNN": Export(lambda: Recurrent(nn.RNN), sequence, 1),
    "U-Net": Export(UNet, rows(3, 16, 16)),
    "transformer encoder": Export(encoder, rows(5, 16)),
}
LARGE = {
    "ViT": Export(vit, rows(3, 32, 32)),
    "BERT": Export(bert, tokens(8, 50)),
    "GPT-2": Export(gpt2, tokens(8, 50)),
    "ResNet-18": Export(torchvision("resnet18"), rows(3, 64, 64)),
    "MobileNetV3": Export(torchvision("mobilenet_v3_small"), rows(3, 64, 64)),
    "DenseNet-121": Export(torchvision("densenet121"), rows(3, 64, 64)),
    "EfficientNet-B0": Export(torchvision("efficientnet_b0"), rows(3, 64, 64)),
    "ConvNeXt-T": Export(torchvision("convnext_tiny"), rows(3, 64, 64)),
    "Swin-T": Export(torchvision("swin_t"), rows(3, 64, 64)),
    "Mixer": Export(mixer, rows(3, 224, 224)),
}
