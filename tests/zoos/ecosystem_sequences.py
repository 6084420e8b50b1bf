"""Libraries of sequences: attention of many kinds, recurrence, spikes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.zoos.ecosystem import Made, Using, row, tokens, vectors


@row("x-transformers")
def decoder() -> Made:
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=50, max_seq_len=32,
        attn_layers=Decoder(dim=16, depth=2, heads=2, rotary_pos_emb=True, attn_dropout=0.1, ff_glu=True),
    )  # fmt: skip
    return AutoregressiveWrapper(net), tokens()


@row("x-transformers")
def encoder() -> Made:
    from x_transformers import Encoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=50, max_seq_len=32, num_memory_tokens=2,
        attn_layers=Encoder(dim=16, depth=2, heads=2, use_rmsnorm=True, alibi_pos_bias=True, layer_dropout=0.2),
    )  # fmt: skip
    return net, tokens()


@row("x-transformers")
def x_encoder_decoder() -> Made:
    from x_transformers import XTransformer

    net = XTransformer(
        dim=16, enc_num_tokens=50, enc_depth=1, enc_heads=2, enc_max_seq_len=32, dec_num_tokens=50, dec_depth=1,
        dec_heads=2, dec_max_seq_len=32, tie_token_emb=True,
    )  # fmt: skip
    return net, lambda n: (torch.randint(50, (n, 12)), torch.randint(50, (n, 10)))


@row("performer-pytorch")
def performer() -> Made:
    from performer_pytorch import PerformerLM

    net = PerformerLM(
        num_tokens=50, max_seq_len=16, dim=16, depth=2, heads=2, dim_head=8, causal=False, nb_features=8,
        feature_redraw_interval=None, attn_dropout=0.1,
    )  # fmt: skip
    return net, tokens()


@row("local-attention")
def local_attention() -> Made:
    from local_attention import LocalTransformer

    net = LocalTransformer(
        num_tokens=50, dim=16, depth=2, max_seq_len=16, local_attn_window_size=4, heads=2, dim_head=8
    )
    return net, tokens()


@row("linformer")
def linformer() -> Made:
    from linformer import Linformer

    return Linformer(dim=16, seq_len=16, depth=2, heads=2, k=4), vectors(16, 16)


@row("reformer-pytorch")
def reformer() -> Made:
    from reformer_pytorch import ReformerLM

    net = ReformerLM(
        num_tokens=50, dim=16, depth=2, max_seq_len=16, heads=2, bucket_size=4, n_hashes=2, causal=True,
    )  # fmt: skip
    return net, tokens()


@row("nystrom-attention")
def nystromformer() -> Made:
    from nystrom_attention import Nystromformer

    return Nystromformer(dim=16, dim_head=8, heads=2, depth=1, num_landmarks=4, pinv_iterations=3), vectors(16, 16)


@row("mambapy")
def mamba() -> Made:
    from mambapy.mamba import Mamba, MambaConfig

    return Mamba(MambaConfig(d_model=8, n_layers=1, d_state=4)), vectors(8, 8)


@row("minGRU-pytorch")
def min_gru() -> Made:
    from minGRU_pytorch.minGRU import minGRU

    return nn.Sequential(minGRU(8), nn.Linear(8, 3)), vectors(6, 8)


@row("rotary-embedding-torch")
def rotary() -> Made:
    from rotary_embedding_torch import RotaryEmbedding

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.rotary = nn.Linear(8, 8), nn.Linear(8, 8), RotaryEmbedding(dim=8, learned_freq=True)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.rotary.rotate_queries_or_keys(self.q(x)), self.rotary.rotate_queries_or_keys(self.k(x))
            return (q @ k.transpose(-1, -2)).softmax(-1) @ x

    return Net(), vectors(2, 6, 8)


@row("perceiver-pytorch")
def perceiver() -> Made:
    from perceiver_pytorch import Perceiver

    net = Perceiver(
        input_channels=3, input_axis=2, num_freq_bands=2, max_freq=4.0, depth=2, num_latents=4, latent_dim=16,
        cross_heads=1, latent_heads=2, cross_dim_head=8, latent_dim_head=8, num_classes=5, weight_tie_layers=True,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 8, 8, 3),)


@row("conformer")
def conformer() -> Made:
    from conformer import Conformer

    return Conformer(dim=16, depth=1, dim_head=8, heads=2, conv_kernel_size=5, conv_dropout=0.1), vectors(10, 16)


@row("xlstm")
def xlstm() -> Made:
    from xlstm import (
        FeedForwardConfig,
        mLSTMBlockConfig,
        mLSTMLayerConfig,
        sLSTMBlockConfig,
        sLSTMLayerConfig,
        xLSTMBlockStack,
        xLSTMBlockStackConfig,
    )

    net = xLSTMBlockStack(
        xLSTMBlockStackConfig(
            mlstm_block=mLSTMBlockConfig(
                mlstm=mLSTMLayerConfig(conv1d_kernel_size=4, qkv_proj_blocksize=4, num_heads=2)
            ),
            slstm_block=sLSTMBlockConfig(
                slstm=sLSTMLayerConfig(backend="vanilla", num_heads=2, conv1d_kernel_size=4),
                feedforward=FeedForwardConfig(proj_factor=1.3, act_fn="gelu"),
            ),
            context_length=8, num_blocks=2, embedding_dim=16, slstm_at=[1],
        )
    )  # fmt: skip
    return net, vectors(8, 16)


@row("titans-pytorch")
def titans() -> Made:
    from titans_pytorch import NeuralMemory

    return Using(NeuralMemory(dim=8, chunk_size=2), lambda net, x: net(x)[0]), vectors(4, 8)


@row("hyper-connections")
def hyper_connections() -> Made:
    from hyper_connections import HyperConnections

    init, expand, reduce = HyperConnections.get_init_and_expand_reduce_stream_functions(2)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([init(dim=8, branch=nn.Linear(8, 8)) for _ in range(2)])

        def forward(self, x: Tensor) -> Tensor:
            x = expand(x)
            for layer in self.layers:
                x = layer(x)
            return reduce(x)

    return Net(), vectors(5, 8)


@row("ncps")
def liquid() -> Made:
    from ncps.torch import CfC
    from ncps.wirings import AutoNCP

    return CfC(4, AutoNCP(10, 3, seed=3), batch_first=True), vectors(5, 4)


@row("ncps")
def ltc() -> Made:
    from ncps.torch import LTC
    from ncps.wirings import AutoNCP

    return LTC(4, AutoNCP(10, 3, seed=3), batch_first=True, ode_unfolds=2), vectors(3, 4)


@row("snntorch")
def leaky() -> Made:
    import snntorch as snn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)
            self.lif, self.out = snn.Leaky(beta=0.9), snn.Synaptic(alpha=0.9, beta=0.8, learn_alpha=True)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mem = self.lif.init_leaky()
            syn, mem2 = self.out.init_synaptic()
            spikes = []
            for _ in range(5):
                spk, mem = self.lif(self.one(x), mem)
                spk, syn, mem2 = self.out(self.two(spk), syn, mem2)
                spikes.append(spk)
            return torch.stack(spikes), mem2

    return Net(), vectors(8)


@row("spikingjelly")
def spiking() -> Made:
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                layer.Linear(8, 16), neuron.LIFNode(surrogate_function=surrogate.ATan()),
                layer.Linear(16, 4), neuron.ParametricLIFNode(surrogate_function=surrogate.Sigmoid()),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self.net)
            return torch.stack([self.net(x) for _ in range(4)]).mean(0)

    return Net(), vectors(8)


@row("norse")
def norse_lif() -> Made:
    import norse.torch as norse

    net = norse.SequentialState(nn.Linear(8, 16), norse.LIFCell(), nn.Linear(16, 4), norse.LILinearCell(4, 3))

    def call(net: Any, x: Tensor) -> Tensor:
        state, outputs = None, []
        for _ in range(4):
            y, state = net(x, state)
            outputs.append(y)
        return torch.stack(outputs)

    return Using(net, call), vectors(8)


@row("soft-moe-pytorch")
def soft_moe() -> Made:
    from soft_moe_pytorch import SoftMoE

    return SoftMoE(dim=8, seq_len=12, num_experts=3), vectors(12, 8)
