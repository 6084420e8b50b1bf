"""Workloads: a seeded model with its batch, its loss and, where it belongs to the step, its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ..errors import PCGraphError
from . import nets


@dataclass
class Workload:
    """What every contender does the same thing with.

    Attributes:
        model: the parameters are shared by all contenders.
        inputs: positional arguments of a call.
        target: second argument of the loss.
        loss: (output, target) -> scalar.
        lr: of the SGD step that ends a training step; None leaves the gradients as they are.
        unrolled: makes the module that pcgraph is equal to, where that is not the model itself: one with a step per
            time in place of a fused recurrent kernel, with the same parameters.
    """

    model: nn.Module
    inputs: tuple[Any, ...]
    target: Any
    loss: Callable[[Any, Any], Tensor]
    lr: float | None = None
    unrolled: Callable[[nn.Module], nn.Module] | None = None

    def to(self, where: torch.device | torch.dtype) -> Workload:
        """Move model, inputs and target to a device, or their floating point numbers to a type."""

        def move(t: Tensor) -> Tensor:
            return t.to(where) if isinstance(where, torch.device) or t.is_floating_point() else t

        self.model.to(where)
        self.inputs, self.target = tree_map_only(Tensor, move, (self.inputs, self.target))
        return self


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean over everything but the last dimension, which holds the classes."""
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))


def squared(output: Tensor, target: Tensor) -> Tensor:
    """Half the squared distance, summed over features and averaged over the batch."""
    return 0.5 * (output - target).square().sum() / output.shape[0]


def squared_of_all(output: Any, target: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of every floating point tensor in the output, summed."""
    pairs = zip(_floats(output), target, strict=True)
    return torch.stack([(one - two).square().mean() for one, two in pairs]).sum()


def labels(*shape: int, classes: int = 10) -> Tensor:
    """Random classes."""
    return torch.randint(0, classes, shape)


def own(model: nn.Module, inputs: tuple[Any, ...], seed: int) -> Workload:
    """A user's model, with random numbers as the target.

    Raises:
        PCGraphError: it returns no real floating point tensor.
    """
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with torch.no_grad():
        outputs = _floats(model(*inputs))
        for name, buffer in model.named_buffers():
            buffer.copy_(state[name])
    if not outputs:
        raise PCGraphError(
            "the model returns no tensor of real floating point numbers", hint="wrap it in one that does"
        )
    generator = torch.Generator().manual_seed(seed)
    target = [torch.randn(one.shape, generator=generator).to(one.dtype) for one in outputs]
    return Workload(model, inputs, target, squared_of_all)


def built_in(name: str, seed: int) -> Workload:
    """A model of `names.MODELS`, the same for the same seed."""
    torch.manual_seed(seed)
    return _WORKLOADS[name]()


def _floats(output: Any) -> list[Tensor]:
    return [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]


def _classes(make: Callable[[], nn.Module], *shape: int, classes: int = 10) -> Callable[[], Workload]:
    return lambda: Workload(make(), (torch.randn(shape),), labels(shape[0], classes=classes), cross_entropy)


def _nn_lstm() -> Workload:
    work = _classes(nets.NativeLSTM, 32, 50, 32)()
    work.unrolled = nets.UnrolledLSTM
    return work


def _il_mlp() -> Workload:
    model = nets.mlp(300, 3, 784, nn.Tanh)
    return Workload(model, (torch.randn(64, 784),), F.one_hot(labels(64), 10).float(), squared, lr=0.01)


_WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp-64": _classes(lambda: nets.mlp(64, 4, 784), 20, 784),
    "mlp-512": _classes(lambda: nets.mlp(512, 4, 784), 64, 784),
    "lenet": _classes(nets.lenet, 64, 1, 28, 28),
    "alexnet": _classes(nets.alexnet, 64, 3, 32, 32),
    "vgg11": _classes(nets.vgg11, 16, 3, 32, 32),
    "resnet18": _classes(nets.resnet18, 16, 3, 32, 32),
    "resnet50": _classes(nets.resnet50, 2, 3, 224, 224, classes=1000),
    **{f"rnn-{steps}": _classes(nets.HandRNN, 32, steps, 32) for steps in (50, 200, 1000, 5000)},
    **{f"lstm-{steps}": _classes(nets.HandLSTM, 32, steps, 32) for steps in (50, 200, 1000, 5000)},
    "nn-lstm-50": _nn_lstm,
    "deep-1000": _classes(lambda: nets.mlp(64, 1000, 64, nn.Tanh), 20, 64),
    "gpt-4": lambda: Workload(nets.GPT(), (labels(8, 64, classes=256),), labels(8, 64, classes=256), cross_entropy),
    "moe": _classes(nets.moe, 512, 64),
    "il-mlp": _il_mlp,
}
