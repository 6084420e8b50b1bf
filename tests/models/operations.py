"""Tensor operations as models use them: shapes, indices, masks, reductions, linear algebra, complex numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import WIDE, Made, Registry

MODELS = Registry()


class Between(nn.Module):
    """``linear -> function -> linear``; the function also gets a free parameter of the input's feature size."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], features: int, result: int) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(features, features), nn.Linear(result, 3)
        self.free = nn.Parameter(torch.linspace(0.5, 1.5, features))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x), self.free))


def between(function: Callable[[Tensor, Tensor], Tensor], features: int = 6, batch: int = 4) -> Made:
    """A model around `function`: ([batch, features], [features]) -> [batch, any]."""
    with torch.no_grad():
        width = function(torch.rand(batch, features), torch.ones(features)).shape[-1]
    return Between(function, features, width), (torch.randn(batch, features),)


@MODELS.case()
def square() -> Made:
    return between(lambda x, w: x * x)


@MODELS.case()
def cube() -> Made:
    return between(lambda x, w: x * x * x)


@MODELS.case()
def fan_out_of_six() -> Made:
    return between(lambda x, w: x.sin() + x.cos() * x + (x - w) * x.tanh() + x)


@MODELS.case()
def powers() -> Made:
    return between(lambda x, w: (x.abs() + 0.1) ** w + x**2 + 2.0**x + torch.pow(x, 3))


@MODELS.case()
def squeeze_and_permute() -> Made:
    return between(
        lambda x, w: x.unsqueeze(1).permute(2, 0, 1).squeeze(2).transpose(0, 1)[:, None].expand(-1, 2, -1).flatten(1)
    )


@MODELS.case()
def einsum() -> Made:
    return between(lambda x, w: torch.einsum("bi,bj,j->bij", x, x, w).flatten(1))


@MODELS.case()
def split_and_chunk() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        a, b, c = x.split([1, 2, 3], dim=1)
        d, e = c.chunk(2, dim=1) if c.shape[1] % 2 == 0 else (c[:, :1], c[:, 1:])
        f, _, g = torch.tensor_split(x, 3, dim=1)
        return torch.cat([a * b, d, e * a, f + g], dim=1)

    return between(function)


@MODELS.case()
def unused_pieces() -> Made:
    """Only the middle piece is used: the others receive no error."""
    return between(lambda x, w: x.chunk(3, dim=1)[1] + x.unbind(1)[5].unsqueeze(1))


@MODELS.case()
def stack_and_unbind() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        first, *rest = x.unbind(1)
        return torch.stack([first, *[first * r for r in rest], w.sum().expand_as(first)], dim=1)

    return between(function)


@MODELS.case()
def gather_and_index_select() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        order = x.argsort(dim=1)
        picked = x.index_select(1, torch.tensor([0, 2, 2, 5]))
        return torch.cat([x.gather(1, order[:, :3]), picked, torch.take_along_dim(x, order[:, 3:], 1)], dim=1)

    return between(function)


@MODELS.case()
def advanced_indexing() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        rows, columns = torch.tensor([0, 1, 1, 0]), torch.tensor([3, 3, 0, 2])
        return torch.cat(
            [x[:, [1, 1, 4]], x[rows, columns].expand(x.shape[0], 4), x[..., None, ::2].squeeze(-2)], dim=1
        )

    return between(function)


@MODELS.case()
def where_and_clamp() -> Made:
    return between(lambda x, w: torch.where(x > 0.1, x * w, x.clamp(-0.5, 0.3)) + x.clamp(min=-w, max=w))


@MODELS.case()
def masked_fill_and_topk() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        values, indices = x.topk(3, dim=1)
        sparse = x.masked_fill(x < values[:, -1:], -1e4)
        return torch.cat([values, sparse.softmax(1), indices.to(x.dtype) * 0.1], dim=1)

    return between(function)


@MODELS.case()
def data_dependent_mask() -> Made:
    """Boolean indexing: the number of picked entries depends on data."""
    return between(lambda x, w: torch.relu(x) + x[x > 0.2].sum())


@MODELS.case()
def scatter() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        target = torch.tensor([0, 1, 0, 2, 2, 1]).expand(x.shape[0], 6)
        summed = torch.zeros(x.shape[0], 3, dtype=x.dtype).scatter_add(1, target, x)
        pooled = torch.zeros(x.shape[0], 3, dtype=x.dtype).scatter_reduce(1, target, x, "amax", include_self=False)
        return torch.cat([summed, pooled, x.scatter(1, target[:, :2], 0.5)], dim=1)

    return between(function)


@MODELS.case(rebatch=None)
def message_passing() -> Made:
    """A graph network: gather at the edges' sources, sum at their targets."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        source, target = torch.tensor([0, 1, 2, 3, 0, 2, 1]), torch.tensor([1, 2, 3, 0, 2, 0, 1])
        for _ in range(2):
            x = torch.zeros_like(x).index_add(0, target, torch.tanh(x[source] * w)) + x
        return x

    return between(function)


@MODELS.case()
def cumulative() -> Made:
    return between(lambda x, w: x.cumsum(1) + (0.5 * x).cumprod(1) + x.cummax(1).values + torch.logcumsumexp(x, 1))


@MODELS.case()
def sorting() -> Made:
    return between(
        lambda x, w: (
            x.sort(dim=1, descending=True).values * w + x.median(1, keepdim=True).values + x.kthvalue(2, 1, True)[0]
        )
    )


@MODELS.case()
def reductions() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        columns = [
            x.sum(1),
            x.mean(1),
            x.prod(1),
            x.logsumexp(1),
            x.norm(dim=1),
            x.var(1),
            x.std(1),
            x.amax(1),
            x.amin(1),
        ]
        return torch.stack([*columns, x.max(1).values, x.min(1)[0], x.max().expand_as(columns[0])], dim=1)

    return between(function)


@MODELS.case()
def ties() -> Made:
    """Gradients at ties and kinks: torch splits or picks, and so must a local product."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        zero = torch.zeros_like(x) * x
        return (
            zero.abs()
            + torch.maximum(zero, zero * 2)
            + torch.relu(zero)
            + zero.amax(1, keepdim=True)
            + torch.fmin(x, x)
        )

    return between(function)


@MODELS.case()
def pointwise() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        positive = F.softplus(x) + 0.1
        total = positive.sqrt() + positive.rsqrt() + positive.log() + positive.log1p() + positive.reciprocal()
        total = total + x.erf() + x.expm1() + x.atan() + x.sinh() * 0.1 + x.sign() * x + x.round()
        total = total + x.remainder(0.7) + x.nan_to_num() + torch.atan2(x, positive) + torch.lerp(x, positive, 0.3)
        return total + torch.addcmul(x, x, positive) + torch.addcdiv(x, x, positive) + torch.hypot(x, positive)

    return between(function)


@MODELS.case()
def broadcasting() -> Made:
    """Errors are summed back to the operand's shape: [6] and [batch, 1] and [] against [batch, 6]."""
    return between(lambda x, w: (x - x.mean(1, keepdim=True)) * w + w / (1 + x.square().mean()) + w.mean() * w[:1])


@MODELS.case()
def type_promotion() -> Made:
    """Integers, booleans and other floating types meet the activations."""
    return between(
        lambda x, w: x * 2 + x * (x > 0) + x * torch.arange(6) + (x.double() * w.double()).to(x.dtype) + x / 3
    )


@MODELS.case()
def matrix_products() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        square = torch.outer(w, w)
        cube = x.unsqueeze(2) @ w.unsqueeze(0)
        parts = [
            x @ square,
            torch.addmm(x, x, square),
            torch.bmm(cube, cube)[:, 0],
            (cube @ w),
            torch.tensordot(x, square, dims=1),
        ]
        return torch.cat([*parts, torch.mv(x, w).unsqueeze(1), (x @ x.T) @ x, torch.kron(w[:2], x[:, :2])], dim=1)

    return between(function)


@MODELS.case()
def rearranging() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        parts = [
            x.roll(2, 1),
            x.flip(1),
            F.pad(x, (1, 2)),
            x.repeat(1, 2),
            x.tile(2),
            x.unfold(1, 3, 2).flatten(1),
            x.narrow(1, 1, 3),
        ]
        parts += [
            x.T.reshape(x.shape[0], -1),
            x.movedim(0, 1).T,
            x.reshape(-1, 2, 3).swapaxes(1, 2).flatten(1),
            x.rot90(2),
        ]
        return torch.cat(parts, dim=1)

    return between(function)


@MODELS.case()
def diagonals() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        full = torch.diag_embed(x) + torch.diag(w).tril() + x.unsqueeze(1).triu(1)
        return torch.cat([full.diagonal(dim1=1, dim2=2), full.flatten(1), full.sum((1, 2)).unsqueeze(1)], dim=1)

    return between(function)


@MODELS.case(dtypes=WIDE)
def distances() -> Made:
    """Soft nearest centres, by torch.cdist and by hand."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        centres = torch.stack([w, w.flip(0), 2 * w])
        by_hand = (x[:, None] - centres).square().sum(-1)
        return torch.cat([torch.softmax(-by_hand, 1), torch.cdist(x, centres)], dim=1)

    return between(function, batch=5)


@MODELS.case(dtypes=WIDE)
def fourier_layer() -> Made:
    """Complex numbers inside: filter in frequency space."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x, dim=1) * torch.complex(w[:4], w[2:])
        return torch.cat([torch.fft.irfft(spectrum, n=6, dim=1), spectrum.abs(), spectrum.real * spectrum.imag], dim=1)

    return between(function)


@MODELS.case(dtypes=WIDE)
def linear_algebra() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        matrix = torch.outer(w, w) + 3 * torch.eye(6, dtype=x.dtype)
        solved = torch.linalg.solve(matrix, x.T).T
        factor = torch.linalg.cholesky(matrix)
        return torch.cat(
            [solved, x @ torch.linalg.inv(matrix), x @ factor, torch.logdet(matrix).expand(x.shape[0], 1)], dim=1
        )

    return between(function)


@MODELS.case()
def one_hot_and_bucketize() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        bucket = torch.bucketize(x.detach().float(), torch.tensor([-1.0, 0.0, 1.0]))
        return torch.cat([x, F.one_hot(bucket, 4).to(x.dtype).flatten(1) * x.mean(1, keepdim=True)], dim=1)

    return between(function)


class Losses(nn.Module):
    """Most losses of torch.nn.functional, as a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        y = self.body(x)
        z, probability, hot = torch.tanh(y), torch.sigmoid(y), F.one_hot(labels, 4).to(y.dtype)
        weight = torch.tensor([1, 2, 0.5, 1], dtype=y.dtype)
        of_labels = [F.cross_entropy(y, labels, weight=weight), F.nll_loss(y.log_softmax(1), labels)]
        of_labels.append(F.multi_margin_loss(y.float(), labels).to(y.dtype))
        of_values = [F.l1_loss(z, hot), F.mse_loss(z, hot), F.huber_loss(z, hot, delta=0.4), F.smooth_l1_loss(z, hot)]
        of_bits = [F.binary_cross_entropy_with_logits(y, hot), F.binary_cross_entropy(probability, hot)]
        of_signs = [F.soft_margin_loss(y, 2 * hot - 1), F.hinge_embedding_loss(y, 2 * hot - 1)]
        of_rates = [F.poisson_nll_loss(y, hot), F.gaussian_nll_loss(y, hot, probability)]
        of_pairs = [F.kl_div(y.log_softmax(1), z.softmax(1), reduction="batchmean"), F.triplet_margin_loss(y, z, hot)]
        of_pairs.append(F.cosine_embedding_loss(y, z, labels * 0 + 1))
        return torch.stack([*of_labels, *of_values, *of_bits, *of_signs, *of_rates, *of_pairs])


@MODELS.case()
def functional_losses() -> Made:
    return Losses(), (torch.randn(5, 6), torch.tensor([0, 3, 1, 2, 1]))


@MODELS.case()
def products() -> Made:
    """Torch's gradient of a product asks whether a factor is zero, and takes another way if so."""

    def function(x: Tensor, w: Tensor) -> Tensor:
        dropped = x * torch.tensor([1, 1, 0, 1, 1, 1])
        rows = torch.stack([x.prod(1), dropped.prod(1), (x * w).prod(1, keepdim=True).squeeze(1)], dim=1)
        return torch.cat([rows, x.cumprod(1), dropped.cumprod(1), x[:2].prod().expand(x.shape[0], 1)], dim=1)

    return between(function)


@MODELS.case()
def norms() -> Made:
    def function(x: Tensor, w: Tensor) -> Tensor:
        orders = [x.norm(p, dim=1) for p in (1, 2, 3, 0.5, float("inf"), -float("inf"), 0)]
        clipped = x.renorm(2, 0, 1.0)
        return torch.cat([torch.stack(orders, 1), clipped, x.norm().expand(x.shape[0], 1)], dim=1)

    return between(function)
