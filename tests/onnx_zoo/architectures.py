"""The networks that are exported, small enough for a test and of the sizes of heads and kernels that people use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Recurrent(nn.Module):
    """A recurrent network over ``[batch, time, features]`` and a linear read-out at every time; returns states too."""

    def __init__(self, cls: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.body = cls(6, 8, batch_first=True, **options)
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, state = self.body(x)
        return (self.head(y), *(state if isinstance(state, tuple) else (state,)))


class UNet(nn.Module):
    """Two levels, batch norms, transposed convolutions and skip connections, on ``[batch, 3, side, side]``."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = self._block(3, width)
        self.second = self._block(width, 2 * width)
        self.bottom = self._block(2 * width, 4 * width)
        self.up_second = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.back_second = self._block(4 * width, 2 * width)
        self.up_first = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.back_first = self._block(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)
        self.pool = nn.MaxPool2d(2)

    @staticmethod
    def _block(entering: int, leaving: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(entering, leaving, 3, padding=1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.ReLU(),
            nn.Conv2d(leaving, leaving, 3, padding=1),
            nn.BatchNorm2d(leaving),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        two = self.second(self.pool(one))
        three = self.bottom(self.pool(two))
        two = self.back_second(torch.cat((two, self.up_second(three)), 1))
        one = self.back_first(torch.cat((one, self.up_first(two)), 1))
        return self.head(one)


class Answer(nn.Module):
    """A model of transformers that takes tensors in order and returns one."""

    def __init__(self, model: nn.Module, answer: str, *names: str) -> None:
        super().__init__()
        self.model, self.answer, self.names = model, answer, names

    def forward(self, *tensors: Tensor) -> Tensor:
        given = dict(zip(self.names, tensors, strict=True))
        return self.model(**given, return_dict=True)[self.answer]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 12), nn.ReLU(), nn.Dropout(0.0), nn.Linear(12, 4))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def vision(name: str, **options: Any) -> nn.Module:
    """A model of torchvision with random weights and ten classes."""
    from torchvision.models import get_model

    model: nn.Module = get_model(name, weights=None, num_classes=10, **options)
    return model


def mixer() -> nn.Module:
    from timm.models.mlp_mixer import MlpMixer

    return MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=48)


_DRY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def bert(width: int, heads: int, attention: str) -> nn.Module:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=99, hidden_size=width, num_hidden_layers=2, num_attention_heads=heads, intermediate_size=2 * width,
        max_position_embeddings=32, attn_implementation=attention, **_DRY,
    )  # fmt: skip
    return Answer(BertModel(config, add_pooling_layer=False), "last_hidden_state", "input_ids", "attention_mask")


def gpt2(width: int, heads: int, attention: str) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=99, n_embd=width, n_layer=2, n_head=heads, n_positions=32, use_cache=False, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation=attention, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return Answer(GPT2LMHeadModel(config), "logits", "input_ids", "attention_mask")
