"""How models are put together: outputs at several depths, sharing, freezing, keyword and structured arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import Made, Registry, own_loss
from .feedforward import dense

MODELS = Registry()


class Depths(nn.Module):
    """Losses at three depths; the first output also feeds the layers above it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.early = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = torch.tanh(self.one(x))
        b = torch.tanh(self.two(a))
        return a, self.early(a), self.three(b) + a[:, :3]


@MODELS.case()
def outputs_at_several_depths() -> Made:
    return Depths(), (torch.randn(4, 6),)


class Named(nn.Module):
    """A dictionary of outputs, an inner vertex among them, and a nested list."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = dense([6, 8, 8], nn.ReLU)
        self.heads = nn.ModuleDict({"mean": nn.Linear(8, 2), "scale": nn.Linear(8, 2)})

    def forward(self, x: Tensor) -> dict[str, Any]:
        h = torch.relu(self.trunk(x))
        return {"hidden": h, "mean": self.heads["mean"](h), "more": [F.softplus(self.heads["scale"](h)), 3, None]}


@MODELS.case()
def dictionary_of_outputs() -> Made:
    return Named(), (torch.randn(4, 6),)


class Moments(NamedTuple):
    mean: Tensor
    scale: Tensor


class NamedTupleOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Moments:
        mean, scale = self.both(x).chunk(2, -1)
        return Moments(mean, scale.exp())


@MODELS.case()
def named_tuple_output() -> Made:
    return NamedTupleOutput(), (torch.randn(4, 6),)


class Repeated(nn.Module):
    """The same tensor twice in the output, a view of it, and an input handed through."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(x)
        return y, y, y[:, :2], x


@MODELS.case()
def same_output_twice() -> Made:
    return Repeated(), (torch.randn(4, 6),)


class DeepSupervision(nn.Module):
    """One scalar made of several losses inside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))
        self.heads = nn.ModuleList(nn.Linear(6, 3) for _ in range(4))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        loss = x.new_zeros(())
        for k, (layer, head) in enumerate(zip(self.layers, self.heads, strict=True)):
            x = torch.relu(layer(x))
            loss = loss + 0.5**k * F.cross_entropy(head(x), labels)
        penalty = sum(p.square().sum() for p in self.parameters())
        return loss + F.smooth_l1_loss(x, torch.ones_like(x)) + 1e-3 * penalty


@MODELS.case(loss=own_loss)
def losses_inside_forward() -> Made:
    return DeepSupervision(), (torch.randn(4, 6), torch.tensor([0, 2, 1, 1]))


class Shared(nn.Module):
    """One submodule under two names and at three places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = self.first
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        x = self.norm(torch.tanh(self.second(x)))
        return self.norm(self.first(x))


@MODELS.case()
def shared_submodule() -> Made:
    return Shared(), (torch.randn(4, 6),)


class Loop(nn.Module):
    """One layer used eight times; parameters picked from a list by a Python index."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(6) + 0.1 * k) for k in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for k in range(8):
            x = torch.sin(self.layer(x) * self.scales[k % 3])
        return x


@MODELS.case()
def module_reused_in_a_loop() -> Made:
    return Loop(), (torch.randn(4, 6),)


class ListLoop(nn.Module):
    """A Python loop over a list that does not depend on data."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.plan = [(0, "tanh"), (1, "relu"), (0, "skip"), (2, "relu"), (1, "tanh")]

    def forward(self, x: Tensor) -> Tensor:
        for index, what in self.plan:
            y = self.layers[index](x)
            x = x + y if what == "skip" else getattr(torch, what)(y)
        return x


@MODELS.case()
def loop_over_a_list() -> Made:
    return ListLoop(), (torch.randn(4, 6),)


@MODELS.case()
def frozen_parameters() -> Made:
    model = dense([6, 8, 8, 8, 3], nn.Tanh)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in ("0.weight", "0.bias", "4.weight", "6.bias"))
    return model, (torch.randn(4, 6),)


@MODELS.case()
def frozen_model_with_input_gradient() -> Made:
    model = dense([6, 8, 3], nn.Tanh)
    model.requires_grad_(False)
    return model, (torch.randn(4, 6, requires_grad=True),)


class Unused(nn.Module):
    """A parameter and a module that forward never reads, and a head whose result is thrown away."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Parameter(torch.ones(3))
        self.idle = nn.Linear(4, 4)
        self.layer, self.head, self.thrown = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.layer(x))
        self.thrown(h)
        return self.head(h)


@MODELS.case()
def unused_parameters() -> Made:
    return Unused(), (torch.randn(4, 6),)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.used, self.unused = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.trunk(x))
        return self.used(h), self.unused(torch.tanh(h))


def first_output(output: Any) -> Tensor:
    return (output[0] ** 2).mean()


@MODELS.case(loss=first_output)
def unused_output_head() -> Made:
    """The second output is returned, but no loss reads it: its parameters get no gradient."""
    return TwoHeads(), (torch.randn(4, 6),)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.tower(left), self.tower(right)
        return F.pairwise_distance(a, b), F.cosine_similarity(a, b)


@MODELS.case()
def siamese() -> Made:
    return Siamese(), (torch.randn(4, 6), torch.randn(4, 6))


class Contrastive(nn.Module):
    """Normalised embeddings of two views, compared with each other and with a stopped gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.predictor = dense([6, 8, 4], nn.ReLU), nn.Linear(4, 4)
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = F.normalize(self.tower(left), dim=-1), F.normalize(self.tower(right), dim=-1)
        logits = a @ b.T / self.temperature
        labels = torch.arange(left.shape[0])
        stopped = 2 - 2 * F.cosine_similarity(F.normalize(self.predictor(a), dim=-1), b.detach(), dim=-1)
        return F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels) + stopped.mean()


@MODELS.case(loss=own_loss)
def contrastive() -> Made:
    return Contrastive(), (torch.randn(4, 6), torch.randn(4, 6))


class SafeNormalise(nn.Module):
    """Rows of zeros: F.normalize stays finite, and so does its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.head(F.normalize(torch.relu(self.layer(x)), dim=1)), dim=-1)


@MODELS.case()
def normalise_zero_rows() -> Made:
    x = torch.randn(4, 5)
    x[1] = 0
    return SafeNormalise(), (x,)


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor, *, scale: float = 1.0, shift: Tensor | None = None, mode: str = "tanh") -> Tensor:
        y = scale * self.layer(x)
        if shift is not None:
            y = y + shift
        return torch.tanh(y) if mode == "tanh" else torch.relu(y)


def _keywords() -> dict[str, Any]:
    return {"shift": torch.randn(4, requires_grad=True), "scale": 0.7, "mode": "relu"}


@MODELS.case(keywords=_keywords)
def keyword_arguments() -> Made:
    return Keywords(), (torch.randn(4, 6),)


class Structured(nn.Module):
    """Tensors inside lists and dictionaries; one of them passed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, pair: list[Tensor], extra: dict[str, Any]) -> Tensor:
        left, right = (self.layer(x) for x in pair)
        return left * torch.sigmoid(right) + extra["bias"][:, :4] * extra["factor"]


@MODELS.case()
def structured_arguments() -> Made:
    x = torch.randn(4, 5, requires_grad=True)
    return Structured(), ([x, torch.randn(4, 5)], {"bias": x, "factor": 2})


class MaskedMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids) * mask.unsqueeze(-1)
        return self.head(x.sum(1) / mask.sum(1, keepdim=True))


@MODELS.case()
def integer_and_mask_inputs() -> Made:
    return MaskedMean(), (torch.randint(0, 9, (4, 5)), torch.arange(5) < torch.tensor([[5], [3], [1], [4]]))


@MODELS.case()
def gradient_of_inputs() -> Made:
    return dense([6, 8, 3], nn.Tanh), (torch.randn(4, 6, requires_grad=True),)


class Hyper(nn.Module):
    """The weights of one layer are the output of another network."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = dense([3, 8, 24], nn.Tanh)
        self.code = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.maker(self.code).view(4, 6))


@MODELS.case()
def hypernetwork() -> Made:
    return Hyper(), (torch.randn(4, 6),)


@MODELS.case()
def forward_hooks() -> Made:
    """A hook changes a module's output, another its input."""
    model = dense([6, 8, 3], nn.Tanh)
    model[0].register_forward_hook(lambda module, args, output: output * 0.5)
    model[2].register_forward_pre_hook(lambda module, args: (args[0] + 0.1,))
    return model, (torch.randn(4, 6),)


class Empty(nn.Module):
    """No parameters at all: only the input learns."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) * x.softmax(-1)


@MODELS.case()
def no_parameters() -> Made:
    return Empty(), (torch.randn(4, 6, requires_grad=True),)


class Unlearned(nn.Module):
    """A target made under no_grad, and a distance to it."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.target = dense([6, 8, 4], nn.ReLU), dense([6, 8, 4], nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            goal = self.target(x)
        return self.online(x) - goal


@MODELS.case()
def no_grad_region() -> Made:
    return Unlearned(), (torch.randn(4, 6),)


class HandsThrough(nn.Module):
    """Returns an input whose gradient is asked for, and reads it three times as well."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, torch.tanh(self.one(x)) * torch.sin(self.two(x)) + torch.tanh(x)


@MODELS.case()
def input_among_the_outputs() -> Made:
    return HandsThrough(), (torch.randn(4, 6, requires_grad=True),)
