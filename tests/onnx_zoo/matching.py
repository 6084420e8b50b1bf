"""Which parameter of a torch model a tensor is, told by its entries alone.

All parameters are random numbers, so that their bits identify them: a tensor with the same bits in another order is the
same parameter transposed or repacked, whatever exporter and importer have called it. Names are not looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

HITS = 0.99  # share of a tensor's entries that must be found among the parameters, for it to be made of them
FEWEST = 3  # entries below which a tensor is not looked up by entries: too few to tell


@dataclass(frozen=True)
class Place:
    """Where every entry of a tensor stands among the parameters, laid one behind the other; -1 where it is unclear."""

    entries: Tensor


class Parameters:
    """The parameters of a model, as something to look tensors up in.

    Args:
        tensors: by name; float32.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        self.starts: dict[str, int] = {}
        self.total = 0
        for name, tensor in self.tensors.items():
            self.starts[name] = self.total
            self.total += tensor.numel()
        self._whole = {_digest(tensor): name for name, tensor in self.tensors.items()}
        self._sorted: tuple[Tensor, Tensor, Tensor] | None = None

    def find(self, tensor: Tensor) -> Place | None:
        """Where a tensor's entries stand; None if it is no parameter, nor cut out of or packed from parameters."""
        if tensor.dtype != torch.float32 or tensor.numel() == 0:
            return None
        tensor = tensor.detach()
        name = self._whole.get(_digest(tensor))
        if name is not None:
            place = _arrangement(self.tensors[name], tensor)
            if place is not None:
                return Place(place + self.starts[name])
        return self._by_entries(tensor)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Something that has an entry for every entry of the parameters, by parameter."""
        return {
            name: flat[self.starts[name] : self.starts[name] + tensor.numel()].reshape(tensor.shape)
            for name, tensor in self.tensors.items()
        }

    def _by_entries(self, tensor: Tensor) -> Place | None:
        if tensor.numel() < FEWEST:
            return None
        if self._sorted is None:
            bits = torch.cat([_bits(t) for t in self.tensors.values()]) if self.tensors else torch.empty(0).int()
            values, order = bits.sort()
            unique = torch.ones_like(values, dtype=torch.bool)
            unique[1:] &= values[1:] != values[:-1]
            unique[:-1] &= values[1:] != values[:-1]
            self._sorted = values, order, unique
        values, order, unique = self._sorted
        bits = _bits(tensor)
        at = torch.searchsorted(values, bits).clamp_(max=max(len(values) - 1, 0))
        hit = values[at] == bits
        if float(hit.double().mean()) < HITS:
            return None
        return Place(torch.where(hit & unique[at], order[at], -1).reshape(tensor.shape))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int32).reshape(-1)


def _digest(tensor: Tensor) -> tuple[int, int, int]:
    """The same for any order of the same entries."""
    bits = _bits(tensor.float()).to(torch.int64)
    return tensor.numel(), int(bits.sum()), int((bits * bits).sum())


def _arrangement(parameter: Tensor, tensor: Tensor) -> Tensor | None:
    """The number within `parameter` of every entry of `tensor`."""
    numbers = torch.arange(parameter.numel()).reshape(parameter.shape)
    for order in itertools.permutations(range(parameter.dim())):
        if torch.equal(parameter.permute(order).reshape(tensor.shape), tensor):
            return numbers.permute(order).reshape(tensor.shape)
    return None


@dataclass(frozen=True)
class Fused:
    """A batch norm that an exporter put into the convolution before it.

    Attributes:
        weight, bias: of the fused convolution, computed here.
        scale: by which each output channel of the weight was multiplied, shaped to broadcast.
        convolution, norm: paths of the two modules.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    convolution: str
    norm: str


def fusible(model: nn.Module, args: tuple[Tensor, ...]) -> list[Fused]:
    """Every batch norm of a model in evaluation mode that follows a convolution and nothing else."""
    made: dict[int, tuple[str, nn.Module, Tensor]] = {}
    found: list[Fused] = []
    handles = []

    def after(path: str) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
            made[id(result)] = path, module, result  # kept alive, so that no other tensor has this id

        return hook

    def before(path: str) -> object:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            if id(given[0]) in made:
                found.append(_fused(*made[id(given[0])][:2], path, module))

        return hook

    for path, module in model.named_modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            handles.append(module.register_forward_hook(after(path)))  # type: ignore[arg-type]
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(module.register_forward_pre_hook(before(path)))  # type: ignore[arg-type]
    with torch.no_grad():
        model(*args)
    for handle in handles:
        handle.remove()
    return found


def _fused(path: str, convolution: nn.Module, norm_path: str, norm: nn.Module) -> Fused:
    weight, dim = convolution.weight.detach(), 1 if getattr(convolution, "transposed", False) else 0
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    old = 0 if convolution.bias is None else convolution.bias.detach()
    bias = norm.bias.detach() + (old - norm.running_mean) * scale
    scale = scale.reshape([-1 if d == dim else 1 for d in range(weight.dim())])
    return Fused(weight * scale, bias, scale, path, norm_path)


@dataclass
class Account:
    """What became of every parameter of the torch model, and of every tensor that is a parameter now.

    Attributes:
        fused: parameters of the model that the exporter put into a fused convolution.
        folded: parameters that are in the file in no form, or only parts of them.
        untied: parameters that are there more than once.
        lost: parameters (or parts) that are in the file and that the importer has not made trainable.
        extra: imported parameters that are no parameter of the model in any form.
    """

    fused: list[str] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
