"""Other values for the tensors of a case, written in place: a program must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from tests.opinfo.cases import Built
from tests.opinfo.leaves import differentiable, tensors_of


def as_they_are(tensor: Tensor) -> Tensor:
    """The sample's own."""
    return tensor


def reversed_order(tensor: Tensor) -> Tensor:
    """The sample's own in reverse order, indices and masks too.

    >>> reversed_order(torch.tensor([[1, 2], [3, 4]])).tolist()
    [[4, 3], [2, 1]]
    """
    return tensor.flip(tuple(range(tensor.dim())))


def zeros_and_ties(tensor: Tensor) -> Tensor:
    """Where derivatives branch: 0, equal entries, the ends of the unit interval.

    >>> zeros_and_ties(torch.ones(6)).tolist()
    [0.5, 0.0, 1.0, 1.0, -0.0, -1.0]
    """
    return _repeat(tensor, (0.5, 0.0, 1.0, 1.0, -0.0, -1.0))


def not_finite(tensor: Tensor) -> Tensor:
    """NaN and infinities among finite numbers; the first stays finite."""
    return _repeat(tensor, (0.25, -2.0, float("inf"), 0.75, float("nan"), 3.0, float("-inf")))


def _repeat(tensor: Tensor, pattern: tuple[float, ...]) -> Tensor:
    if not differentiable(tensor):
        return tensor
    places = torch.arange(tensor.numel()).remainder(len(pattern)).reshape(tensor.shape)
    return torch.tensor(pattern, dtype=torch.float64)[places].to(tensor.dtype)


def give(built: Built, values: Callable[[Tensor], Tensor]) -> None:
    """Write other values into every tensor of the model and of the call."""
    with torch.no_grad():
        for tensor in _different(tensors_of_case(built)):
            if writable(tensor):
                tensor.detach().copy_(values(tensor.detach()).clone())


def restore(model: nn.Module, fresh: nn.Module) -> None:
    """Give the tensors of a model the values of an equal one."""
    with torch.no_grad():
        pairs = zip(_own(model), _own(fresh), strict=True)
        for mine, other in pairs:
            if writable(mine):
                mine.detach().copy_(other.detach())


def litter(byte: int) -> None:
    """Leave this byte all over the memory that small tensors will be given next: who reads before writing shows."""
    blocks = [torch.full((size,), byte, dtype=torch.uint8) for size in range(8, 1024, 8) for _ in range(3)]
    del blocks


def tensors_of_case(built: Built) -> list[Tensor]:
    """Everything that the run reads."""
    return [*_own(built.model), *tensors_of((built.args, built.kwargs))]


def writable(tensor: Tensor) -> bool:
    """Whether entries have memory of their own."""
    if tensor.layout is not torch.strided:
        return False
    return not any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def _own(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _different(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({id(tensor): tensor for tensor in tensors}.values())
