"""Libraries of flows, differential equations and probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.zoos.ecosystem import Made, Using, row, vectors


class Field(nn.Module):
    """The right side of an equation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.net(x) * (1 + t)


@row("nflows")
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
    return Using(net, lambda net, x: net.log_prob(x)), vectors(4)


@row("zuko")
def nsf() -> Made:
    import zuko

    net = zuko.flows.NSF(3, 2, transforms=2, hidden_features=(16,))
    return Using(net, lambda net, x, c: -net(c).log_prob(x)), lambda n: (torch.randn(n, 3), torch.randn(n, 2))


@row("zuko")
def cnf() -> Made:
    import zuko

    net = zuko.flows.CNF(3, 2, hidden_features=(8,))
    return Using(net, lambda net, x, c: -net(c).log_prob(x)), lambda n: (torch.randn(n, 3), torch.randn(n, 2))


@row("zuko")
def maf_samples() -> Made:
    import zuko

    net = zuko.flows.MAF(3, 2, transforms=2, hidden_features=(16,))
    return Using(net, lambda net, c: net(c).rsample((4,))), vectors(2)


@row("normflows")
def real_nvp() -> Made:
    import normflows as nf

    flows: list[nn.Module] = []
    for _ in range(2):
        flows += [nf.flows.AffineCouplingBlock(nf.nets.MLP([2, 8, 4], init_zeros=True)), nf.flows.Permute(4, "swap")]
    flows += [nf.flows.ActNorm(4)]
    net = nf.NormalizingFlow(nf.distributions.DiagGaussian(4), flows)
    return Using(net, lambda net, x: net.forward_kld(x)), vectors(4)


@row("torchdiffeq")
def odeint() -> Made:
    from torchdiffeq import odeint

    return Using(Field(), lambda net, x: odeint(net, x, torch.linspace(0, 1, 4).to(x))), vectors(4)


@row("torchdiffeq")
def odeint_adjoint() -> Made:
    from torchdiffeq import odeint_adjoint

    return Using(Field(), lambda net, x: odeint_adjoint(net, x, torch.linspace(0, 1, 4).to(x))), vectors(4)


@row("torchsde")
def sdeint() -> Made:
    from torchsde import BrownianInterval, sdeint

    class Equation(nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def __init__(self) -> None:
            super().__init__()
            self.drift, self.diffusion = Field(), Field()

        def f(self, t: Tensor, x: Tensor) -> Tensor:
            return self.drift(t, x)

        def g(self, t: Tensor, x: Tensor) -> Tensor:
            return self.diffusion(t, x).sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            noise = BrownianInterval(0.0, 1.0, size=tuple(x.shape), dtype=x.dtype, entropy=3)
            return sdeint(self, x, torch.tensor([0.0, 1.0]).to(x), bm=noise, dt=0.25, method="euler")

    return Equation(), vectors(4)


@row("torchcde")
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


@row("gpytorch")
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


@row("pyro-ppl")
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

    return Net(), vectors(4)


@row("pyro-ppl")
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

    return Model(), vectors(6)
