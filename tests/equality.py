"""Bitwise comparison of a compiled model with the model itself, under plain autograd."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

from tests.zoo import Case, seed_all

Compile = Callable[[nn.Module], Callable[..., Any]]
MakeOptimizer = Callable[[Iterable[Tensor]], torch.optim.Optimizer]

_INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def compile_pc(model: nn.Module) -> Callable[..., Any]:
    """What is under test: `pcgraph.compile`."""
    import pcgraph

    return pcgraph.compile(model)


def ulp_distance(one: Tensor, two: Tensor) -> Tensor:
    """How many representable numbers lie between the entries; both floating, of one dtype; float64 result.

    >>> ulp_distance(torch.tensor([1.0, 0.0]), torch.tensor([1.0 + 2**-23, -0.0])).tolist()
    [1.0, 0.0]
    """
    kind = _INTEGER[one.element_size()]
    magnitude = torch.iinfo(kind).max  # every bit but the sign
    a, b = one.contiguous().view(kind), two.contiguous().view(kind)
    size_a, size_b = (a & magnitude).to(torch.int64), (b & magnitude).to(torch.int64)
    same_sign = (a < 0) == (b < 0)
    return torch.where(same_sign, (size_a - size_b).abs().double(), size_a.double() + size_b.double())


def difference(one: Any, two: Any) -> str | None:
    """What differs between two tensors, or None if they are equal to the bit (a NaN equals the same NaN).

    >>> difference(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]))
    >>> difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 2**-22]))
    '1 of 2 entries differ, at most by 1 ulp; first at [1]: 2.0 against 2.000000238418579'
    >>> difference(torch.zeros(2), None)
    'a tensor against None'
    """
    if not isinstance(one, Tensor) or not isinstance(two, Tensor):
        if isinstance(one, Tensor) or isinstance(two, Tensor):
            return " against ".join("a tensor" if isinstance(side, Tensor) else repr(side) for side in (one, two))
        return None if one == two else f"{one!r} against {two!r}"
    if one.dtype != two.dtype or one.shape != two.shape:
        return f"{one.dtype} {list(one.shape)} against {two.dtype} {list(two.shape)}"
    one, two = one.detach(), two.detach()
    if torch.equal(one, two):
        return None
    if one.is_complex():
        one, two = torch.view_as_real(one), torch.view_as_real(two)
    unequal = one != two
    if not one.is_floating_point():
        return f"{int(unequal.sum())} of {one.numel()} entries differ"
    kind = _INTEGER[one.element_size()]
    unequal &= one.contiguous().view(kind) != two.contiguous().view(kind)
    count = int(unequal.sum())
    if count == 0:
        return None
    worst = ulp_distance(one, two)[unequal].max().item()
    at = unequal.nonzero()[0].tolist()
    values = f"{one[tuple(at)].item()} against {two[tuple(at)].item()}"
    return f"{count} of {one.numel()} entries differ, at most by {worst:.0f} ulp; first at {at}: {values}"


class Pair:
    """One model twice: trained by plain autograd, and through `compiler`, on the same seeds.

    Each method acts on both and compares. The case says how the loss is made and whether oneDNN must be off.
    """

    def __init__(
        self,
        case: Case,
        dtype: torch.dtype = torch.float32,
        optimizer: MakeOptimizer | None = None,
        compiler: Compile = compile_pc,
    ) -> None:
        self.case = case
        self.model, self.args, self.kwargs = case.build(dtype)
        self.twin = copy.deepcopy(self.model)
        self.compiled = compiler(self.twin)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizers = []
        if optimizer is not None and learned:
            followers = [p for p in self.twin.parameters() if p.requires_grad]
            self.optimizers = [optimizer(learned), optimizer(followers)]
        self.where = f"{case.name} {dtype}"

    def mode(self, train: bool) -> None:
        """Switch both to training or evaluation."""
        self.model.train(train)
        train_compiled = getattr(self.compiled, "train", self.twin.train)
        train_compiled(train)

    def step(self, args: tuple[Any, ...] | None = None, *, seed: int = 7, backward: bool = True) -> None:
        """One call with a loss and (with `backward`) gradients and an optimizer step; compares all there is to see."""
        given = self.args if args is None else args
        with self._kernels():
            mine = self._run(self.model, self.model, given, seed, backward, 0)
            theirs = self._run(self.compiled, self.twin, given, seed, backward, 1)
        assert mine.keys() == theirs.keys(), (
            f"{self.where}: {sorted(mine.keys() ^ theirs.keys())} exist on one side only"
        )
        for name, tensor in mine.items():
            message = difference(tensor, theirs[name])
            assert message is None, f"{self.where}, seed {seed}: {name} differs from plain autograd: {message}"

    def _run(
        self, call: Callable[..., Any], model: nn.Module, args: tuple[Any, ...], seed: int, backward: bool, which: int
    ) -> dict[str, Any]:
        args, kwargs = own_copy((args, self.kwargs))
        model.zero_grad(set_to_none=True)
        seed_all(seed)
        if backward:
            output = call(*args, **kwargs)
            loss = self.case.loss(output)
            loss.backward()
        else:
            with torch.no_grad():
                output = call(*args, **kwargs)
                loss = self.case.loss(output)
        seen: dict[str, Any] = {"random state": torch.get_rng_state()}
        leaves, structure = tree_flatten(output)
        seen["structure of the output"] = structure
        for k, leaf in enumerate(leaves):
            seen[f"output {k}"] = leaf.detach().clone() if isinstance(leaf, Tensor) else leaf
            seen[f"output {k} needs a gradient"] = isinstance(leaf, Tensor) and leaf.requires_grad
        seen["loss"] = loss.detach()
        for k, leaf in enumerate(tree_leaves((args, kwargs))):
            if isinstance(leaf, Tensor):
                seen[f"argument {k}"] = leaf.detach().clone()
                seen[f"gradient of argument {k}"] = None if leaf.grad is None else leaf.grad.clone()
        for name, parameter in model.named_parameters():
            seen[f"gradient of {name}"] = None if parameter.grad is None else parameter.grad.clone()
        if backward and self.optimizers:
            self.optimizers[which].step()
        for name, parameter in model.named_parameters():
            seen[f"parameter {name}"] = parameter.detach().clone()
        for name, buffer in model.named_buffers():
            seen[f"buffer {name}"] = buffer.detach().clone()
        return seen

    @contextlib.contextmanager
    def _kernels(self) -> Iterator[None]:
        """oneDNN's fused recurrent kernels round differently from ATen's own: leave them out where the case says so."""
        (enabled, *_) = torch.backends.mkldnn.set_flags(_enabled=not self.case.native)
        try:
            yield
        finally:
            torch.backends.mkldnn.set_flags(_enabled=enabled)


def own_copy(tree: Any) -> Any:
    """Fresh leaves with the same values; a tensor that stands at two places still does."""
    fresh: dict[int, Tensor] = {}

    def copied(tensor: Tensor) -> Tensor:
        if id(tensor) not in fresh:
            fresh[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        return fresh[id(tensor)]

    return tree_map_only(Tensor, copied, tree)


def assert_exact(
    case: Case,
    dtype: torch.dtype = torch.float32,
    steps: int = 1,
    optimizer: MakeOptimizer | None = None,
    compiler: Compile = compile_pc,
) -> None:
    """Train `case` for some steps by backprop and compiled, and compare after every step, to the bit.

    Compared: outputs (structure, values, whether they need gradients), the loss, gradients of parameters and of
    arguments (None or not, too), arguments (a model may write to them), parameters after the optimizer, buffers, and
    the state of torch's random number generator. The first difference is named, with its distance in ulp.
    """
    pair = Pair(case, dtype, optimizer, compiler)
    for step in range(steps):
        pair.step(seed=100 + step)
