"""Dense networks: activations, depth, normalisation, gates, reparametrised weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from .case import WIDE, Made, Registry

MODELS = Registry()


def dense(widths: list[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Linear layers of the given widths with an activation between each two."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), activation()]
    return nn.Sequential(*layers[:-1])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape)


@MODELS.case()
def mlp_relu() -> Made:
    return dense([12, 16, 16, 5], nn.ReLU), (normal(6, 12),)


@MODELS.case()
def mlp_tanh() -> Made:
    return dense([12, 16, 16, 5], nn.Tanh), (normal(6, 12),)


@MODELS.case()
def mlp_gelu() -> Made:
    return dense([12, 16, 16, 5], nn.GELU), (normal(6, 12),)


@MODELS.case()
def mlp_deep() -> Made:
    return dense([8] * 31, nn.Tanh), (normal(4, 8),)


@MODELS.case()
def mlp_inplace_relu() -> Made:
    return dense([12, 16, 16, 16, 5], lambda: nn.ReLU(inplace=True)), (normal(6, 12),)


@MODELS.case()
def mlp_dropout() -> Made:
    layers = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 16), nn.AlphaDropout(0.2))
    return nn.Sequential(layers, nn.SELU(), nn.Dropout(0.3, inplace=True), nn.Linear(16, 3)), (normal(6, 12),)


@MODELS.case(train=False)
def mlp_dropout_eval() -> Made:
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 3)), (normal(6, 12),)


@MODELS.case()
def mlp_batch_norm() -> Made:
    model = nn.Sequential(
        nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8, affine=False)
    )
    return model, (normal(6, 12),)


@MODELS.case()
def batch_norm_cumulative() -> Made:
    """Momentum None averages over all batches: the factor is read from the counter at every call."""
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, momentum=None), nn.Tanh(), nn.Linear(8, 3)), (normal(6, 6),)


@MODELS.case()
def batch_norm_without_statistics() -> Made:
    layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Tanh(), nn.Linear(8, 3))
    return layers, (normal(6, 6),)


@MODELS.case()
def mlp_layer_norm() -> Made:
    model = nn.Sequential(
        nn.Linear(12, 16), nn.LayerNorm(16), nn.SiLU(), nn.Linear(16, 16), nn.RMSNorm(16), nn.Linear(16, 4)
    )
    return model, (normal(6, 12),)


class ResidualMLP(nn.Module):
    """`depth` residual blocks; the skip is scaled so that activity stays of order one."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, 3)
        self.scale = depth**-0.5

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + self.scale * torch.relu(block(x))
        return self.head(x)


@MODELS.case()
def residual_mlp_50() -> Made:
    return ResidualMLP(8, 50), (normal(4, 8),)


@MODELS.case()
def activations() -> Made:
    """One of each, the randomised leaky ReLU included."""
    chain: list[nn.Module] = []
    for activation in (
        nn.LeakyReLU(0.1), nn.ELU(), nn.SELU(), nn.CELU(0.7), nn.SiLU(), nn.Softplus(), nn.Mish(), nn.Hardtanh(),
        nn.ReLU6(), nn.Hardsigmoid(), nn.LogSigmoid(), nn.Softsign(), nn.Tanhshrink(), nn.Softshrink(0.1),
        nn.Hardshrink(0.1), nn.Threshold(0.05, 0.01), nn.PReLU(8), nn.RReLU(), nn.GELU(approximate="tanh"),
        nn.Softmin(dim=-1),
    ):  # fmt: skip
        chain += [nn.Linear(8, 8), activation]
    return nn.Sequential(*chain), (normal(4, 8),)


@MODELS.case()
def inplace_activations() -> Made:
    chain: list[nn.Module] = []
    for activation in (
        nn.LeakyReLU(0.1, True),
        nn.ELU(1.0, True),
        nn.SiLU(True),
        nn.Hardtanh(inplace=True),
        nn.ReLU6(True),
    ):
        chain += [nn.Linear(8, 8), activation]
    return nn.Sequential(*chain, nn.Linear(8, 2)), (normal(4, 8),)


class Maxout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(10, 24), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).view(x.shape[0], 8, 3).max(dim=2).values)


@MODELS.case()
def maxout() -> Made:
    return Maxout(), (normal(5, 10),)


class Highway(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.gates = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            g = torch.sigmoid(gate(x))
            x = g * torch.tanh(transform(x)) + (1 - g) * x
        return x


@MODELS.case()
def highway() -> Made:
    return Highway(), (normal(5, 8),)


class Experts(nn.Module):
    """A soft mixture: every expert sees the input, a gate weighs them."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(dense([8, 10, 4], nn.ReLU) for _ in range(4))
        self.gate = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        return (weights.unsqueeze(-1) * outputs).sum(1)


@MODELS.case()
def mixture_of_experts() -> Made:
    return Experts(), (normal(5, 8),)


class RoutedExperts(nn.Module):
    """A hard mixture: which samples an expert sees depends on data, so shapes do too."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(8, 4) for _ in range(3))
        self.gate = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.gate(x).softmax(-1)
        weight, choice = scores.max(dim=-1)
        result = x.new_zeros(x.shape[0], 4)
        for k, expert in enumerate(self.experts):
            rows = (choice == k).nonzero().squeeze(1)
            result = result.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return result


@MODELS.case()
def routed_experts() -> Made:
    return RoutedExperts(), (normal(7, 8),)


class Siren(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.sin(3.0 * layer(x))
        return self.last(x)


@MODELS.case()
def siren() -> Made:
    return Siren(), (normal(6, 2),)


class FourierFeatures(nn.Module):
    """A buffer of frequencies used in forward."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(2, 8))
        self.body = dense([16, 16, 3], nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        angle = x @ self.frequencies
        return self.body(torch.cat([angle.sin(), angle.cos()], -1))


@MODELS.case()
def fourier_features() -> Made:
    return FourierFeatures(), (normal(6, 2),)


class GatedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.glu(self.up(x), dim=-1))


@MODELS.case()
def gated_linear() -> Made:
    return GatedLinear(), (normal(5, 8),)


class TwoSided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Bilinear(6, 5, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.tanh(self.mix(left, right))


@MODELS.case(dtypes=WIDE)
def bilinear() -> Made:
    return TwoSided(), (normal(5, 6), normal(5, 5))


@MODELS.case()
def weight_norm() -> Made:
    layers = [parametrizations.weight_norm(nn.Linear(8, 12)), nn.ReLU(), parametrizations.weight_norm(nn.Linear(12, 4))]
    return nn.Sequential(*layers), (normal(5, 8),)


@MODELS.case(dtypes=WIDE)
def spectral_norm() -> Made:
    """Power iteration moves two buffers at every training call."""
    layers = [parametrizations.spectral_norm(nn.Linear(8, 12)), nn.Tanh(), nn.Linear(12, 4)]
    return nn.Sequential(*layers), (normal(5, 8),)


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).transpose(-1, -2)


@MODELS.case()
def own_parametrization() -> Made:
    layer = nn.Linear(6, 6)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(6, 2)), (normal(5, 6),)


class ScalarScale(nn.Module):
    """Parameters without dimensions, and one of a single entry."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.shift = nn.Parameter(torch.tensor(-0.2))
        self.temperature = nn.Parameter(torch.ones(1))
        self.body = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.scale * self.body(x) / self.temperature + self.shift, dim=-1) * self.scale.exp()


@MODELS.case()
def scalar_parameter() -> Made:
    return ScalarScale(), (normal(5, 6),)


class TiedAutoencoder(nn.Module):
    """The decoder is the encoder's transposed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(5, 9))
        self.inner = nn.Parameter(torch.zeros(5))
        self.outer = nn.Parameter(torch.zeros(9))

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(F.linear(x, self.weight, self.inner))
        return F.linear(code, self.weight.t(), self.outer) - x


@MODELS.case()
def tied_transposes() -> Made:
    return TiedAutoencoder(), (normal(6, 9),)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = dense([12, 8, 3], nn.ReLU), dense([3, 8, 12], nn.ReLU)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(x)
        return self.decoder(code) - x, code


@MODELS.case()
def autoencoder() -> Made:
    return Autoencoder(), (normal(6, 12),)


class Crossing(nn.Module):
    """Deep and cross: `x0 * w(x) + x` reads the input at every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.deep = dense([8, 10, 8], nn.ReLU)

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for layer in self.cross:
            x = x0 * layer(x) + x
        return torch.cat([x, self.deep(x0)], dim=1)


@MODELS.case()
def deep_and_cross() -> Made:
    return Crossing(), (0.5 * normal(5, 8),)
