"""Many small libraries: one model or a few of each, tiny and with random weights. What is not installed is left out.

A row is a function that makes a model and, for a batch size, its arguments (a tuple, or a dict of keywords).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoos.specimen import Specimen

Feed = Callable[[int], "tuple[Any, ...] | dict[str, Any]"]
Made = tuple[nn.Module, Feed]

_ROWS: dict[str, tuple[str, Callable[[], Made]]] = {}


def specimens() -> Iterator[Specimen]:
    """Of every package that is installed; the others are named on stderr."""
    absent = set()
    for name, (package, make) in _ROWS.items():
        try:
            version(package)
        except PackageNotFoundError:
            absent.add(package)
        else:
            yield _specimen(f"{package} {name.removeprefix(_prefix(package))}", package, make)
    if absent:
        print(f"not installed: {', '.join(sorted(absent))}", file=sys.stderr)


def _specimen(name: str, package: str, make: Callable[[], Made]) -> Specimen:
    made = functools.cache(make)  # the model belongs to its feed; who judges copies it

    def batch(size: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = made()[1](size)
        return ((), given) if isinstance(given, dict) else (given, {})

    return Specimen("ecosystem", name, lambda: made()[0], lambda: batch(2), package=package, batch=batch)


def _prefix(package: str) -> str:
    return package.replace("-", "_").lower() + "_"


def _row(package: str) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        assert make.__name__ not in _ROWS, f"two rows are called {make.__name__}"
        _ROWS[make.__name__] = (package, make)
        return make

    return register


class _Using(nn.Module):
    """A model called in another way than by its ``forward``."""

    def __init__(self, model: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *args: Any) -> Any:
        return self.call(self.model, *args)


def _images(channels: int = 3, side: int = 32) -> Feed:
    return lambda n: (torch.randn(n, channels, side, side),)


def _vectors(*shape: int) -> Feed:
    return lambda n: (torch.randn(n, *shape),)


def _tokens(length: int = 16, bound: int = 50) -> Feed:
    return lambda n: (torch.randint(bound, (n, length)),)


# -- vision ---------------------------------------------------------------------------------------
@_row("vit-pytorch")
def vit() -> Made:
    from vit_pytorch import ViT

    net = ViT(image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=32, dropout=0.1)
    return net, _images()


@_row("vit-pytorch")
def simple_vit() -> Made:
    from vit_pytorch import SimpleViT

    return SimpleViT(image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=32), _images()


@_row("vit-pytorch")
def cait() -> Made:
    from vit_pytorch.cait import CaiT

    net = CaiT(
        image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, cls_depth=1, heads=2, mlp_dim=32,
        layer_dropout=0.2,
    )  # fmt: skip
    return net, _images()


@_row("vit-pytorch")
def na_vit() -> Made:
    from vit_pytorch.na_vit import NaViT

    net = NaViT(
        image_size=32, patch_size=8, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=32, token_dropout_prob=0.1
    )
    return net, lambda n: ([[torch.randn(3, 16, 32), torch.randn(3, 32, 16)] for _ in range(n)],)


@_row("vit-pytorch")
def mae() -> Made:
    from vit_pytorch import MAE, ViT

    net = ViT(image_size=32, patch_size=8, num_classes=5, dim=16, depth=1, heads=2, mlp_dim=32, pool="mean")
    return MAE(encoder=net, masking_ratio=0.5, decoder_dim=16, decoder_depth=1, decoder_heads=2), _images()


@_row("vit-pytorch")
def max_vit() -> Made:
    from vit_pytorch.max_vit import MaxViT

    net = MaxViT(num_classes=5, dim_conv_stem=8, dim=8, dim_head=4, depth=(1, 1), window_size=2, dropout=0.1)
    return net, _images()


@_row("kornia")
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

    return Net(), _images(3, 16)


# -- sequences ------------------------------------------------------------------------------------
@_row("x-transformers")
def decoder() -> Made:
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=50, max_seq_len=32,
        attn_layers=Decoder(dim=16, depth=2, heads=2, rotary_pos_emb=True, attn_dropout=0.1, ff_glu=True),
    )  # fmt: skip
    return AutoregressiveWrapper(net), _tokens()


@_row("x-transformers")
def encoder() -> Made:
    from x_transformers import Encoder, TransformerWrapper

    net = TransformerWrapper(
        num_tokens=50, max_seq_len=32, num_memory_tokens=2,
        attn_layers=Encoder(dim=16, depth=2, heads=2, use_rmsnorm=True, alibi_pos_bias=True, layer_dropout=0.2),
    )  # fmt: skip
    return net, _tokens()


@_row("x-transformers")
def x_encoder_decoder() -> Made:
    from x_transformers import XTransformer

    net = XTransformer(
        dim=16, enc_num_tokens=50, enc_depth=1, enc_heads=2, enc_max_seq_len=32, dec_num_tokens=50, dec_depth=1,
        dec_heads=2, dec_max_seq_len=32, tie_token_emb=True,
    )  # fmt: skip
    return net, lambda n: (torch.randint(50, (n, 12)), torch.randint(50, (n, 10)))


# -- generation -----------------------------------------------------------------------------------
@_row("diffusers")
def unet2d() -> Made:
    from diffusers import UNet2DModel

    net = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4, attention_head_dim=4, dropout=0.1,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 3, 16, 16), torch.randint(100, (n,)))


@_row("diffusers")
def unet2d_condition() -> Made:
    from diffusers import UNet2DConditionModel

    net = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 4, 16, 16), torch.randint(100, (n,)), torch.randn(n, 5, 8))


@_row("diffusers")
def autoencoder_kl() -> Made:
    from diffusers import AutoencoderKL

    net = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=2,
    )  # fmt: skip
    return _Using(net, lambda net, x: net(x, sample_posterior=True).sample), _images(3, 16)


@_row("diffusers")
def vq_model() -> Made:
    from diffusers import VQModel

    net = VQModel(
        block_out_channels=(8,), norm_num_groups=4, latent_channels=2, num_vq_embeddings=8, sample_size=16,
    )  # fmt: skip
    return net, _images(3, 16)


@_row("diffusers")
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


@_row("diffusers")
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


# -- graphs ---------------------------------------------------------------------------------------
def _graph(n: int, features: int = 8) -> tuple[Tensor, Tensor]:
    nodes = 5 * n
    return torch.randn(nodes, features), torch.randint(nodes, (2, 4 * nodes))


@_row("torch-geometric")
def gcn() -> Made:
    from torch_geometric.nn import GCN

    return GCN(8, 16, 2, 3, dropout=0.2, norm="batch_norm"), _graph


@_row("torch-geometric")
def gat() -> Made:
    from torch_geometric.nn import GAT

    return GAT(8, 16, 2, 3, heads=2, dropout=0.2, v2=True), _graph


@_row("torch-geometric")
def gin() -> Made:
    from torch_geometric.nn import GIN, global_add_pool

    def call(net: Any, x: Tensor, edges: Tensor) -> Tensor:
        return global_add_pool(net(x, edges), torch.arange(len(x)) // 5)

    return _Using(GIN(8, 16, 2, 3), call), _graph


@_row("torch-geometric")
def sage() -> Made:
    from torch_geometric.nn import GraphSAGE

    return GraphSAGE(8, 16, 2, 3, jk="lstm", aggr="max"), _graph


@_row("torch-geometric")
def pna() -> Made:
    from torch_geometric.nn import PNA

    net = PNA(
        8, 16, 2, 3, aggregators=["mean", "min", "max", "std"], scalers=["identity", "amplification"],
        deg=torch.tensor([1, 2, 4, 8, 4, 2]),
    )  # fmt: skip
    return net, _graph


@_row("torch-geometric")
def schnet() -> Made:
    from torch_geometric.nn import SchNet

    net = SchNet(hidden_channels=16, num_filters=16, num_interactions=2, num_gaussians=8)
    return _Using(net, lambda net, z, pos: net(z, pos, torch.arange(len(z)) // 5)), lambda n: (
        torch.randint(1, 9, (5 * n,)),
        torch.randn(5 * n, 3),
    )


# -- flows, equations, probability ----------------------------------------------------------------
@_row("nflows")
def masked_flow() -> Made:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms import CompositeTransform, RandomPermutation
    from nflows.transforms.autoregressive import (
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
    )

    parts = [
        MaskedAffineAutoregressiveTransform(4, 8),
        RandomPermutation(4),
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform(4, 8, tails="linear", tail_bound=3.0),
    ]
    net = Flow(CompositeTransform(parts), StandardNormal([4]))
    return _Using(net, lambda net, x: net.log_prob(x)), _vectors(4)


@_row("zuko")
def nsf() -> Made:
    import zuko

    net = zuko.flows.NSF(3, 2, transforms=2, hidden_features=(16,))
    return _Using(net, lambda net, x, c: -net(c).log_prob(x)), lambda n: (torch.randn(n, 3), torch.randn(n, 2))


@_row("zuko")
def cnf() -> Made:
    import zuko

    net = zuko.flows.CNF(3, 2, hidden_features=(8,))
    return _Using(net, lambda net, x, c: -net(c).log_prob(x)), lambda n: (torch.randn(n, 3), torch.randn(n, 2))


@_row("zuko")
def maf_samples() -> Made:
    import zuko

    net = zuko.flows.MAF(3, 2, transforms=2, hidden_features=(16,))
    return _Using(net, lambda net, c: net(c).rsample((4,))), _vectors(2)


@_row("snntorch")
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

    return Net(), _vectors(8)


@_row("torchdiffeq")
def odeint() -> Made:
    from torchdiffeq import odeint

    return _Using(_Field(), lambda net, x: odeint(net, x, torch.linspace(0, 1, 4).to(x))), _vectors(4)


@_row("torchdiffeq")
def odeint_adjoint() -> Made:
    from torchdiffeq import odeint_adjoint

    return _Using(_Field(), lambda net, x: odeint_adjoint(net, x, torch.linspace(0, 1, 4).to(x))), _vectors(4)


class _Field(nn.Module):
    """The right side of an equation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(x) * (1 + t)


@_row("torchsde")
def sdeint() -> Made:
    from torchsde import BrownianInterval, sdeint

    class Equation(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self) -> None:
            super().__init__()
            self.drift, self.diffusion = _Field(), _Field()

        def f(self, t: Tensor, x: Tensor) -> Tensor:
            return self.drift(t, x)

        def g(self, t: Tensor, x: Tensor) -> Tensor:
            return self.diffusion(t, x).sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            noise = BrownianInterval(0.0, 1.0, size=tuple(x.shape), dtype=x.dtype, entropy=3)
            return sdeint(self, x, torch.tensor([0.0, 1.0]).to(x), bm=noise, dt=0.25, method="euler")

    return Equation(), _vectors(4)


@_row("torchcde")
def cdeint() -> Made:
    import torchcde

    class Controlled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 4 * 3)

        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return self.net(z).tanh().view(*z.shape[:-1], 4, 3)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.field = nn.Linear(3, 4), Controlled()

        def forward(self, x: Tensor) -> Tensor:
            path = torchcde.CubicSpline(torchcde.natural_cubic_coeffs(x))
            z = self.start(path.evaluate(path.interval[0]))
            return torchcde.cdeint(path, self.field, z, path.interval, adjoint=False, method="rk4")

    return Net(), lambda n: (torch.randn(n, 6, 3),)


@_row("gpytorch")
def exact_gp() -> Made:
    import gpytorch

    class Kernel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)
            self.kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=2))
            self.likelihood = gpytorch.likelihoods.GaussianLikelihood()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            z = self.net(x)
            prior = gpytorch.distributions.MultivariateNormal(y.new_zeros(len(x)), self.kernel(z))
            return -self.likelihood(prior).log_prob(y)

    return Kernel(), lambda n: (torch.randn(n + 4, 4), torch.randn(n + 4))


@_row("pyro-ppl")
def pyro_flow() -> Made:
    from pyro.distributions import Normal, TransformedDistribution
    from pyro.distributions.transforms import affine_autoregressive, spline_coupling

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = affine_autoregressive(4, [8])
            self.two = spline_coupling(4, hidden_dims=[8], count_bins=4, bound=3.0)

        def forward(self, x: Tensor) -> Tensor:
            base = Normal(x.new_zeros(4), x.new_ones(4)).to_event(1)
            return -TransformedDistribution(base, [self.one, self.two]).log_prob(x)

    return Net(), _vectors(4)


@_row("pyro-ppl")
def svi() -> Made:
    import pyro
    from pyro import distributions as dist
    from pyro.infer import Trace_ELBO
    from pyro.nn import PyroModule

    class Model(PyroModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(2, 6)

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                mean, scale = self.encoder(x).chunk(2, -1)
                pyro.sample("z", dist.Normal(mean, scale.exp()).to_event(1))

        def forward(self, x: Tensor) -> Tensor:
            return Trace_ELBO().differentiable_loss(self.model, self.guide, x)

    return Model(), _vectors(6)


@_row("normflows")
def real_nvp() -> Made:
    import normflows as nf

    flows: list[nn.Module] = []
    for _ in range(2):
        flows += [nf.flows.AffineCouplingBlock(nf.nets.MLP([2, 8, 4], init_zeros=True)), nf.flows.Permute(4, "swap")]
    flows += [nf.flows.ActNorm(4)]
    net = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), flows)
    return _Using(net, lambda net, x: net.forward_kld(x)), _vectors(4)


@_row("entmax")
def entmax15() -> Made:
    import entmax

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.loss = nn.Linear(6, 6), nn.Linear(6, 6), entmax.Entmax15Loss()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            p = entmax.sparsemax(self.one(x), dim=-1) + entmax.entmax_bisect(self.one(x), 1.3, dim=-1)
            y = self.two(entmax.entmax15(p, dim=-1))
            return y, self.loss(y, torch.arange(len(x)) % 6)

    return Net(), _vectors(6)


@_row("spikingjelly")
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

    return Net(), _vectors(8)


@_row("norse")
def norse_lif() -> Made:
    import norse.torch as norse

    net = norse.SequentialState(nn.Linear(8, 16), norse.LIFCell(), nn.Linear(16, 4), norse.LILinearCell(4, 3))

    def call(net: Any, x: Tensor) -> Tensor:
        state, outputs = None, []
        for _ in range(4):
            y, state = net(x, state)
            outputs.append(y)
        return torch.stack(outputs)

    return _Using(net, call), _vectors(8)


@_row("performer-pytorch")
def performer() -> Made:
    from performer_pytorch import PerformerLM

    net = PerformerLM(
        num_tokens=50, max_seq_len=16, dim=16, depth=2, heads=2, dim_head=8, causal=False, nb_features=8,
        feature_redraw_interval=None, attn_dropout=0.1,
    )  # fmt: skip
    return net, _tokens()


@_row("local-attention")
def local_attention() -> Made:
    from local_attention import LocalTransformer

    net = LocalTransformer(num_tokens=50, dim=16, depth=2, max_seq_len=16, local_attn_window_size=4, heads=2, dim_head=8)
    return net, _tokens()


@_row("linformer")
def linformer() -> Made:
    from linformer import Linformer

    return Linformer(dim=16, seq_len=16, depth=2, heads=2, k=4), _vectors(16, 16)


@_row("reformer-pytorch")
def reformer() -> Made:
    from reformer_pytorch import ReformerLM

    net = ReformerLM(
        num_tokens=50, dim=16, depth=2, max_seq_len=16, heads=2, bucket_size=4, n_hashes=2, causal=True,
    )  # fmt: skip
    return net, _tokens()


@_row("nystrom-attention")
def nystromformer() -> Made:
    from nystrom_attention import Nystromformer

    return Nystromformer(dim=16, dim_head=8, heads=2, depth=1, num_landmarks=4, pinv_iterations=3), _vectors(16, 16)


@_row("mambapy")
def mamba() -> Made:
    from mambapy.mamba import Mamba, MambaConfig

    return Mamba(MambaConfig(d_model=8, n_layers=1, d_state=4)), _vectors(8, 8)


@_row("rotary-embedding-torch")
def rotary() -> Made:
    from rotary_embedding_torch import RotaryEmbedding

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.rotary = nn.Linear(8, 8), nn.Linear(8, 8), RotaryEmbedding(dim=8, learned_freq=True)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.rotary.rotate_queries_or_keys(self.q(x)), self.rotary.rotate_queries_or_keys(self.k(x))
            return (q @ k.transpose(-1, -2)).softmax(-1) @ x

    return Net(), _vectors(2, 6, 8)


@_row("perceiver-pytorch")
def perceiver() -> Made:
    from perceiver_pytorch import Perceiver

    net = Perceiver(
        input_channels=3, input_axis=2, num_freq_bands=2, max_freq=4.0, depth=2, num_latents=4, latent_dim=16,
        cross_heads=1, latent_heads=2, cross_dim_head=8, latent_dim_head=8, num_classes=5, weight_tie_layers=True,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 8, 8, 3),)


@_row("conformer")
def conformer() -> Made:
    from conformer import Conformer

    return Conformer(dim=16, depth=1, dim_head=8, heads=2, conv_kernel_size=5, conv_dropout=0.1), _vectors(10, 16)


@_row("egnn-pytorch")
def egnn() -> Made:
    from egnn_pytorch import EGNN_Network

    net = EGNN_Network(num_tokens=10, dim=8, depth=2, num_nearest_neighbors=3, norm_coors=True)
    return net, lambda n: (torch.randint(10, (n, 6)), torch.randn(n, 6, 3))


@_row("vector-quantize-pytorch")
def vector_quantize() -> Made:
    from vector_quantize_pytorch import VectorQuantize

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4)
            self.vq = VectorQuantize(dim=8, codebook_size=8, decay=0.8, commitment_weight=1.0)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y, _, loss = self.vq(self.one(x))
            return self.two(y), loss

    return Net(), _vectors(6, 8)


@_row("vector-quantize-pytorch")
def fsq() -> Made:
    from vector_quantize_pytorch import FSQ

    return nn.Sequential(nn.Linear(6, 8), FSQ(levels=[4, 3, 3], dim=8)), _vectors(5, 6)


@_row("denoising-diffusion-pytorch")
def gaussian_diffusion() -> Made:
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    net = Unet(dim=8, dim_mults=(1, 2), flash_attn=False, attn_dim_head=4, attn_heads=2)
    return GaussianDiffusion(net, image_size=16, timesteps=20), _images(3, 16)


@_row("soft-moe-pytorch")
def soft_moe() -> Made:
    from soft_moe_pytorch import SoftMoE

    return SoftMoE(dim=8, seq_len=12, num_experts=3), _vectors(12, 8)


@_row("tab-transformer-pytorch")
def ft_transformer() -> Made:
    from tab_transformer_pytorch import FTTransformer

    net = FTTransformer(categories=(4, 3), num_continuous=3, dim=8, dim_out=1, depth=1, heads=2, attn_dropout=0.1)
    return net, lambda n: (torch.randint(3, (n, 2)), torch.randn(n, 3))


@_row("pytorch-tabnet")
def tabnet() -> Made:
    from pytorch_tabnet.tab_network import TabNet

    net = TabNet(6, 3, n_d=4, n_a=4, n_steps=2, group_attention_matrix=torch.eye(6))
    return net, _vectors(6)


# -- images again ---------------------------------------------------------------------------------
@_row("segmentation-models-pytorch")
def segmentation_unet() -> Made:
    import segmentation_models_pytorch as smp

    net = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(16, 8, 8), classes=2)
    return net, _images()


@_row("segmentation-models-pytorch")
def segmentation_fpn() -> Made:
    import segmentation_models_pytorch as smp

    net = smp.FPN("mobilenet_v2", encoder_weights=None, decoder_pyramid_channels=16, decoder_segmentation_channels=8)
    loss = smp.losses.DiceLoss("binary")
    return _Using(net, lambda net, x, y: loss(net(x), y)), lambda n: (
        torch.randn(n, 3, 64, 64),
        torch.randint(2, (n, 1, 64, 64)),
    )


@_row("monai")
def monai_unet() -> Made:
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    net = UNet(3, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=1, dropout=0.1)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    return _Using(net, lambda net, x, y: loss(net(x), y)), lambda n: (
        torch.randn(n, 1, 8, 8, 8),
        torch.randint(2, (n, 1, 8, 8, 8)),
    )


@_row("monai")
def swin_unetr() -> Made:
    from monai.networks.nets import SwinUNETR

    net = SwinUNETR(in_channels=1, out_channels=2, feature_size=12, spatial_dims=2, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
    return net, _images(1, 32)


@_row("monai")
def unetr() -> Made:
    from monai.networks.nets import UNETR

    net = UNETR(1, 2, img_size=(16, 16), feature_size=4, hidden_size=16, mlp_dim=32, num_heads=2, spatial_dims=2)
    return net, _images(1, 16)


@_row("open-clip-torch")
def clip() -> Made:
    from open_clip import CLIP, ClipLoss

    net = CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
        text_cfg={"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
    )
    loss = ClipLoss()
    return _Using(net, lambda net, x, y: loss(*net(x, y))), lambda n: (
        torch.randn(n, 3, 16, 16),
        torch.randint(50, (n, 8)),
    )


@_row("lightly")
def ntxent() -> Made:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    net, loss = SimCLRProjectionHead(8, 8, 4), NTXentLoss()
    return _Using(net, lambda net, x, y: loss(net(x), net(y))), lambda n: (torch.randn(n, 8), torch.randn(n, 8))


@_row("lightly")
def barlow_twins() -> Made:
    from lightly.loss import BarlowTwinsLoss, VICRegLoss
    from lightly.models.modules import BarlowTwinsProjectionHead

    net, one, two = BarlowTwinsProjectionHead(8, 8, 4), BarlowTwinsLoss(), VICRegLoss()

    def call(net: Any, x: Tensor, y: Tensor) -> Tensor:
        a, b = net(x), net(y)
        return one(a, b) + two(a, b)

    return _Using(net, call), lambda n: (torch.randn(n, 8), torch.randn(n, 8))


@_row("pytorch-metric-learning")
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


# -- symmetries and operators ---------------------------------------------------------------------
@_row("e3nn")
def tensor_product() -> Made:
    from e3nn import o3
    from e3nn.nn import BatchNorm, Gate

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            gate = Gate("4x0e", [torch.tanh], "2x0e", [torch.sigmoid], "2x1o")
            self.one = o3.FullyConnectedTensorProduct("2x0e+1x1o", "1x0e+1x1o", gate.irreps_in)
            self.gate, self.norm = gate, BatchNorm(gate.irreps_out)
            self.two = o3.Linear(gate.irreps_out, "1x0e")

        def forward(self, x: Tensor, r: Tensor) -> Tensor:
            y = o3.spherical_harmonics("1x0e+1x1o", r, normalize=True)
            return self.two(self.norm(self.gate(self.one(x, y))))

    return Net(), lambda n: (torch.randn(n + 2, 5), torch.randn(n + 2, 3))


@_row("escnn")
def steerable() -> Made:
    from escnn import gspaces
    from escnn import nn as enn

    space = gspaces.rot2dOnR2(4)
    into, hidden = enn.FieldType(space, [space.trivial_repr]), enn.FieldType(space, 2 * [space.regular_repr])

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = enn.SequentialModule(
                enn.R2Conv(into, hidden, 3, padding=1), enn.InnerBatchNorm(hidden), enn.ReLU(hidden),
                enn.GroupPooling(hidden),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return self.net(enn.GeometricTensor(x, into)).tensor

    return Net(), _images(1, 8)


@_row("neuraloperator")
def fno() -> Made:
    from neuralop.models import FNO

    return FNO(n_modes=(4, 4), in_channels=2, out_channels=1, hidden_channels=8, n_layers=2), _images(2, 8)


@_row("pykan")
def kan() -> Made:
    from kan import KAN

    return KAN(width=[3, 4, 1], grid=3, k=3, seed=0, auto_save=False), _vectors(3)


@_row("ncps")
def liquid() -> Made:
    from ncps.torch import CfC
    from ncps.wirings import AutoNCP

    return CfC(4, AutoNCP(10, 3, seed=3), batch_first=True), _vectors(5, 4)


@_row("ncps")
def ltc() -> Made:
    from ncps.torch import LTC
    from ncps.wirings import AutoNCP

    return LTC(4, AutoNCP(10, 3, seed=3), batch_first=True, ode_unfolds=2), _vectors(3, 4)


@_row("xlstm")
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
            mlstm_block=mLSTMBlockConfig(mlstm=mLSTMLayerConfig(conv1d_kernel_size=4, qkv_proj_blocksize=4, num_heads=2)),
            slstm_block=sLSTMBlockConfig(
                slstm=sLSTMLayerConfig(backend="vanilla", num_heads=2, conv1d_kernel_size=4),
                feedforward=FeedForwardConfig(proj_factor=1.3, act_fn="gelu"),
            ),
            context_length=8, num_blocks=2, embedding_dim=16, slstm_at=[1],
        )
    )  # fmt: skip
    return net, _vectors(8, 16)


@_row("minGRU-pytorch")
def min_gru() -> Made:
    from minGRU_pytorch.minGRU import minGRU

    return nn.Sequential(minGRU(8), nn.Linear(8, 3)), _vectors(6, 8)


# -- tables, agents, and the rest -----------------------------------------------------------------
@_row("rtdl")
def rtdl_ft_transformer() -> Made:
    import rtdl

    net = rtdl.FTTransformer.make_baseline(
        n_num_features=3, cat_cardinalities=[4, 3], d_token=8, n_blocks=2, attention_dropout=0.1, ffn_d_hidden=16,
        ffn_dropout=0.1, residual_dropout=0.1, d_out=1,
    )  # fmt: skip
    return net, lambda n: (torch.randn(n, 3), torch.randint(3, (n, 2)))


@_row("rtdl_num_embeddings")
def periodic() -> Made:
    from rtdl_num_embeddings import PeriodicEmbeddings, PiecewiseLinearEmbeddings

    bins = [torch.linspace(-2, 2, 5) for _ in range(3)]
    one = PeriodicEmbeddings(3, 4, lite=False)
    two = PiecewiseLinearEmbeddings(bins, 4, activation=True, version="B")
    return _Using(nn.ModuleList([one, two]), lambda both, x: both[0](x) + both[1](x)), _vectors(3)


@_row("rtdl_revisiting_models")
def revisiting_resnet() -> Made:
    from rtdl_revisiting_models import ResNet

    net = ResNet(
        d_in=6, d_out=2, n_blocks=2, d_block=8, d_hidden=None, d_hidden_multiplier=2.0, dropout1=0.2, dropout2=0.1,
    )  # fmt: skip
    return net, _vectors(6)


@_row("torchrl")
def actor() -> Made:
    from torchrl.modules import MLP, NoisyLinear, TanhNormal

    class Actor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = MLP(in_features=4, out_features=4, num_cells=[8], layer_class=NoisyLinear)

        def forward(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
            loc, scale = self.net(x).chunk(2, -1)
            dist = TanhNormal(loc, scale.exp())
            return dist.rsample(), dist.log_prob(a.tanh() * 0.9)

    return Actor(), lambda n: (torch.randn(n, 4), torch.randn(n, 2))


@_row("tensordict")
def tensordict_sequence() -> Made:
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule, TensorDictSequential

    net = TensorDictSequential(
        TensorDictModule(nn.Linear(4, 6), in_keys=["x"], out_keys=["h"]),
        TensorDictModule(nn.Tanh(), in_keys=["h"], out_keys=["h"]),
        TensorDictModule(nn.Linear(6, 2), in_keys=["h"], out_keys=["y"]),
    )
    return _Using(net, lambda net, x: net(TensorDict({"x": x}, batch_size=[len(x)]))["y"]), _vectors(4)


@_row("hyper-connections")
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

    return Net(), _vectors(5, 8)


@_row("torch-geometric")
def transformer_conv() -> Made:
    from torch_geometric.nn import GATv2Conv, GraphNorm, SAGPooling, TransformerConv, global_mean_pool

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = TransformerConv(8, 4, heads=2, dropout=0.1, edge_dim=3), GraphNorm(8)
            self.pool, self.two = SAGPooling(8, ratio=0.6), GATv2Conv(8, 4)

        def forward(self, x: Tensor, edges: Tensor, kinds: Tensor) -> Tensor:
            batch = torch.arange(len(x)) // 5
            y = self.norm(self.one(x, edges, kinds), batch).relu()
            y, edges, _, batch, _, _ = self.pool(y, edges, None, batch)
            return global_mean_pool(self.two(y, edges), batch)

    return Net(), lambda n: (*_graph(n), torch.randn(20 * n, 3))


@_row("torch-geometric")
def rgcn() -> Made:
    from torch_geometric.nn import RGCNConv

    return RGCNConv(8, 4, num_relations=3, num_bases=2), lambda n: (*_graph(n), torch.randint(3, (20 * n,)))


@_row("torch-geometric")
def point_net() -> Made:
    from torch_geometric.nn import PointNetConv, global_max_pool

    net = PointNetConv(nn.Sequential(nn.Linear(11, 8), nn.ReLU()), nn.Linear(8, 4))

    def call(net: Any, x: Tensor, pos: Tensor, edges: Tensor) -> Tensor:
        return global_max_pool(net(x, pos, edges), torch.arange(len(x)) // 5)

    return _Using(net, call), lambda n: (_graph(n)[0], torch.randn(5 * n, 3), _graph(n)[1])


@_row("higher")
def maml() -> Made:
    import higher

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            inner = torch.optim.SGD(self.net.parameters(), lr=0.1)
            with higher.innerloop_ctx(self.net, inner, track_higher_grads=False) as (fast, step):
                step.step((fast(x) - y).square().mean())
                return (fast(x) - y).square().mean() + self.net(x).mean()

    return Net(), lambda n: (torch.randn(n, 4), torch.randn(n, 2))


@_row("titans-pytorch")
def titans() -> Made:
    from titans_pytorch import NeuralMemory

    return _Using(NeuralMemory(dim=8, chunk_size=2), lambda net, x: net(x)[0]), _vectors(4, 8)
