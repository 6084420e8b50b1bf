"""Transformers and their parts: tied embeddings, masks, rotary positions, patches, mixers."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import Made, Registry

MODELS = Registry()
VOCABULARY = 17


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length))


class Block(nn.Module):
    """Pre-norm block with fused attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            part.view(b, t, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv(self.ln1(x)).split(d, 2)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
        x = x + self.drop(self.project(attended))
        return x + self.drop(self.down(F.gelu(self.up(self.ln2(x)))))


class GPT(nn.Module):
    """Decoder-only; the head's weight is the embedding's."""

    def __init__(self, width: int = 16, layers: int = 2, heads: int = 2, length: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, length, width))
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@MODELS.case()
def gpt_tied() -> Made:
    return GPT(), (tokens(3, 8),)


@MODELS.case()
def gpt_dropout() -> Made:
    return GPT(dropout=0.2), (tokens(3, 8),)


class NextToken(nn.Module):
    """Returns the scalar loss, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt = GPT()

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        logits = self.gpt(ids)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=0, label_smoothing=0.1)


@MODELS.case()
def gpt_scalar_loss() -> Made:
    return NextToken(), (tokens(3, 8), tokens(3, 8))


class Bert(nn.Module):
    """nn.TransformerEncoderLayer stacked, with a padding mask and a learned position table."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(VOCABULARY, 16, padding_idx=0), nn.Embedding(10, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions(torch.arange(ids.shape[1]))
        x = self.encoder(x, src_key_padding_mask=ids == 0)
        return self.head(x[:, 0])


@MODELS.case()
def bert() -> Made:
    ids = tokens(4, 7)
    ids[:, 0] = 1
    return Bert(0.1), (ids,)


class PostNormEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


@MODELS.case()
def encoder_norm_first() -> Made:
    return PostNormEncoder(), (torch.randn(5, 3, 12),)


class SeqToSeq(nn.Module):
    """nn.Transformer: cross attention reads the encoder's memory in every decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Transformer(12, 2, 1, 2, 24, 0.0, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = self.transformer.generate_square_subsequent_mask(target.shape[1], dtype=target.dtype)
        return self.transformer(source, target, tgt_mask=mask)


@MODELS.case()
def seq_to_seq_transformer() -> Made:
    return SeqToSeq(), (torch.randn(3, 6, 12), torch.randn(3, 5, 12))


class SelfAttention(nn.Module):
    """nn.MultiheadAttention with averaged weights as second output and a boolean mask as input."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, dropout=0.1, batch_first=True)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        y, weights = self.attention(x, x, x, key_padding_mask=padding, need_weights=True)
        return self.norm(x + y), weights


@MODELS.case()
def multihead_attention() -> Made:
    return SelfAttention(), (torch.randn(3, 6, 12), torch.arange(6) >= torch.tensor([[6], [4], [5]]))


class CrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 2, kdim=8, vdim=6, add_bias_kv=True)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.attention(query, key, value, need_weights=False)[0]


@MODELS.case(rebatch=None)
def cross_attention() -> Made:
    return CrossAttention(), (torch.randn(4, 3, 12), torch.randn(6, 3, 8), torch.randn(6, 3, 6))


class CausalByHand(nn.Module):
    """Attention from matmul, masked_fill and softmax; mask and positions are buffers."""

    mask: Tensor
    positions: Tensor

    def __init__(self, width: int = 12, length: int = 6) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.register_buffer("mask", torch.triu(torch.ones(length, length, dtype=torch.bool), 1), persistent=False)
        angle = torch.arange(length)[:, None] / 10 ** (torch.arange(0, width, 2) / width)
        self.register_buffer("positions", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        x = x + self.positions[:t]
        scores = self.query(x) @ self.key(x).transpose(-2, -1) / math.sqrt(x.shape[-1])
        weights = self.drop(scores.masked_fill(self.mask[:t, :t], float("-inf")).softmax(-1))
        return x + weights @ self.value(x)


@MODELS.case()
def causal_attention_by_hand() -> Made:
    return CausalByHand(), (torch.randn(3, 6, 12),)


def rotate(x: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat([-right, left], dim=-1)


class Llama(nn.Module):
    """RMS norm by hand, rotary positions, grouped keys and values, SwiGLU."""

    cos: Tensor
    sin: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 16)
        self.norm1, self.norm2 = nn.Parameter(torch.ones(16)), nn.Parameter(torch.ones(16))
        self.query, self.key, self.value = nn.Linear(16, 16, False), nn.Linear(16, 8, False), nn.Linear(16, 8, False)
        self.out, self.head = nn.Linear(16, 16, False), nn.Linear(16, VOCABULARY, False)
        self.gate, self.up, self.down = nn.Linear(16, 24, False), nn.Linear(16, 24, False), nn.Linear(24, 16, False)
        angle = torch.outer(torch.arange(8.0), torch.tensor([1.0, 0.1])).repeat(1, 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    @staticmethod
    def normalise(x: Tensor, weight: Tensor) -> Tensor:
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        b, t, d = x.shape
        h = self.normalise(x, self.norm1)
        q = self.query(h).view(b, t, 4, 4).transpose(1, 2)
        k = self.key(h).view(b, t, 2, 4).transpose(1, 2)
        v = self.value(h).view(b, t, 2, 4).transpose(1, 2)
        cos, sin = self.cos[:t], self.sin[:t]
        q, k = q * cos + rotate(q) * sin, k * cos + rotate(k) * sin
        k, v = k.repeat_interleave(2, dim=1), v.repeat_interleave(2, dim=1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, d))
        h = self.normalise(x, self.norm2)
        return self.head(x + self.down(F.silu(self.gate(h)) * self.up(h)))


@MODELS.case()
def llama() -> Made:
    return Llama(), (tokens(3, 8),)


class ViT(nn.Module):
    """Patches by convolution, a class token, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 12))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, 12))
        self.block = nn.TransformerEncoderLayer(12, 3, 24, 0.0, "gelu", batch_first=True, norm_first=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        return self.head(self.block(x)[:, 0])


@MODELS.case()
def vit() -> Made:
    return ViT(), (torch.randn(3, 3, 16, 16),)


class MixerBlock(nn.Module):
    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(patches, 10), nn.GELU(), nn.Linear(10, patches))
        self.within = nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.ln1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.ln2(x))


@MODELS.case()
def mixer() -> Made:
    return nn.Sequential(MixerBlock(9, 8), MixerBlock(9, 8), nn.LayerNorm(8), nn.Linear(8, 3)), (torch.randn(3, 9, 8),)


class LinearAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).unbind(2)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        memory = torch.einsum("bthd,bthe->bhde", k, v)
        scale = torch.einsum("bthd,bhd->bth", q, k.sum(1))
        return torch.einsum("bthd,bhde,bth->bthe", q, memory, 1 / scale).flatten(2)


@MODELS.case()
def linear_attention() -> Made:
    return LinearAttention(), (torch.randn(3, 5, 8),)


class RelativeBias(nn.Module):
    """A table of biases gathered by relative distance, as in T5 and Swin."""

    distance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.qk, self.value = nn.Linear(8, 16), nn.Linear(8, 8)
        self.table = nn.Parameter(0.1 * torch.randn(11))
        steps = torch.arange(6)
        self.register_buffer("distance", steps[:, None] - steps[None, :] + 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.qk(x).chunk(2, -1)
        return (torch.baddbmm(self.table[self.distance].expand(x.shape[0], 6, 6), q, k.mT, alpha=0.3)).softmax(
            -1
        ) @ self.value(x)


@MODELS.case()
def relative_bias() -> Made:
    return RelativeBias(), (torch.randn(3, 6, 8),)


class BagOfWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCABULARY, 8, mode="mean")
        self.head = nn.Linear(8, 3)

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        return self.head(self.bag(ids, offsets))


@MODELS.case()
def embedding_bag() -> Made:
    return BagOfWords(), (tokens(4, 6),)


def _offsets() -> dict[str, Any]:
    return {"offsets": torch.tensor([0, 4, 5, 9])}


@MODELS.case(keywords=_offsets, rebatch=None)
def embedding_bag_offsets() -> Made:
    return BagOfWords(), (tokens(1, 12).flatten(),)


class Perceiver(nn.Module):
    """A small latent array reads the input again and again through one shared attention."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(3, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.latents.expand(x.shape[0], 3, 8)
        for _ in range(3):
            z = z + self.attention(z, x, x)[0]
        return z.mean(1)


@MODELS.case()
def perceiver() -> Made:
    return Perceiver(), (torch.randn(3, 7, 8),)
