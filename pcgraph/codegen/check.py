"""Proof of every kind: its local program, run once on real tensors, equals autograd on that one vertex to the bit.

Tracing sees fake tensors, and a few of torch's derivative formulas take another branch on those. A kind that fails
here becomes opaque instead of being slightly wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..graph.vertex import TensorSpec
from .emit import emit
from .kinds import Kind

if TYPE_CHECKING:
    from .local import LocalProgram


_TINY, _SMALL = 4096, 1_000_000  # numbers in the operands
_PERIOD = 16_411  # random numbers are repeated after so many, which no dimension divides


def difference(kind: Kind, program: LocalProgram, layouts: dict[int, TensorSpec], thorough: bool = True) -> str | None:
    """What differs, or None. Operands are random; where the operation refuses such data, nothing can be said.

    Args:
        kind: what to evaluate.
        program: what is to be proven.
        layouts: receives how the errors of the operands are really laid out: fake kernels do not always tell.
        thorough: try several kinds of data. A program that follows from proven ones is right in all or in none.
    """
    if not kind.errors or kind.operands[0].device.type == "meta":
        return None
    # Some derivatives take another branch where there are zeros, so both kinds of data are tried. A few numbers may add
    # up to the same in two orders by chance, so small operands are tried more than once.
    size = sum(math.prod(spec.shape) for spec in kind.operands)
    local = _function(kind, program)
    for seed in range(4 if thorough and size < _TINY else 1):
        for zeros in (False, True) if thorough and size < _SMALL else (False,):
            found = _try(kind, program, local, zeros, seed, layouts)
            if found is not None:
                return found
    return None


def predicts(kind: Kind, program: LocalProgram) -> bool:
    """Whether a program that follows from others is proven to predict: for a kind that no error comes to.

    Operands are random. Where the operation refuses such data, nothing is proven.
    """
    if kind.operands[0].device.type == "meta":
        return True
    generator = torch.Generator().manual_seed(0)
    values = [_sample(spec, generator, False) for spec in kind.operands]
    local = _function(kind, program)
    with _random_state_kept(kind.operands[0].device) as generators, torch.no_grad():
        _seed(generators)
        expected = kind.call([_copied(value) for value in values])
        _seed(generators)
        got = local(values, [])
    return all(map(_same, expected, got[: len(kind.outputs)]))


def _try(
    kind: Kind,
    program: LocalProgram,
    local: Callable[..., Any],
    zeros: bool,
    seed: int,
    layouts: dict[int, TensorSpec],
) -> str | None:
    device = kind.operands[0].device
    generator = torch.Generator().manual_seed(seed)
    values = [_sample(spec, generator, zeros) for spec in kind.operands]
    arriving = [_spread(_sample(spec, generator, False), generator) for _, spec in (*kind.errors, *kind.collected)]
    with _random_state_kept(device) as generators:
        _seed(generators)
        try:
            expected = _autograd(kind, program.wanted, values, arriving)
        except Exception:  # random data may lie outside of the domain; the trace was checked against the capture
            return None
        _seed(generators)
        with torch.no_grad():
            got = list(local(values, list(arriving)))  # may write to them: autograd had copies
    for name, a, b in zip(_labels(program), expected, got, strict=True):
        if (a is None) != (b is None) or (a is not None and b is not None and not _same(a, b)):
            return f"its trace differs from autograd at {name}"
    for i, a, b in zip(program.wanted, expected[len(kind.outputs) :], got[len(kind.outputs) :], strict=True):
        if a is not None and b is not None and a.layout is torch.strided:
            if effective_stride(TensorSpec.of(a)) != effective_stride(TensorSpec.of(b)):
                return f"its trace lays out the error of operand {i} in another way than autograd"
            layouts[i] = replace(TensorSpec.of(b), requires_grad=False)
    return None


def is_sparse(spec: TensorSpec | None) -> bool:
    """Whether a tensor has a layout without strides."""
    return spec is not None and bool(spec.shape) and not spec.stride


def effective_stride(spec: TensorSpec) -> tuple[int, ...]:
    """The strides that matter: not those of dimensions of size 1."""
    if 0 in spec.shape:
        return ()
    return tuple(stride for size, stride in zip(spec.shape, spec.stride, strict=bool(spec.stride)) if size != 1)


def errors(kind: Kind, wanted: Sequence[int]) -> list[Any] | None:
    """The errors that a kind hands to its operands, on random data; None where it refuses such data.

    Only their layouts, and which are None, mean anything.
    """
    if kind.operands[0].device.type == "meta" or any(map(is_sparse, (*kind.operands, *kind.outputs))):
        return None
    generator = torch.Generator().manual_seed(0)
    values = [_sample(spec, generator, False) for spec in kind.operands]
    arriving = [_sample(spec, generator, False) for _, spec in (*kind.errors, *kind.collected)]
    with _random_state_kept(kind.operands[0].device):
        try:
            return _autograd(kind, wanted, values, arriving)[len(kind.outputs) :]
        except Exception:  # random data may lie outside of the domain
            return None


def _labels(program: LocalProgram) -> list[str]:
    return [f"output {j}" for j in range(len(program.outputs))] + [f"the error of operand {i}" for i in program.wanted]


def _sample(spec: TensorSpec, generator: torch.Generator, zeros: bool) -> torch.Tensor:
    """Random numbers, some of them 0 if asked for, for floating types; zeros, which are valid indices, for integers."""
    if 0 in spec.stride and math.prod(spec.shape) > 1:  # expanded memory is filled before it is expanded
        shape = tuple(1 if stride == 0 else size for size, stride in zip(spec.shape, spec.stride, strict=True))
        stride = tuple(stride or 1 for stride in spec.stride)
        return _sample(replace(spec, shape=shape, stride=stride), generator, zeros).as_strided(spec.shape, spec.stride)
    tensor = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype, device=spec.device)
    if spec.dtype is torch.bool:  # a mask
        return tensor.copy_(torch.rand(spec.shape, generator=generator) < 0.5)
    if not (spec.dtype.is_floating_point or spec.dtype.is_complex):
        return tensor.zero_()
    # In full precision: sums of rounded numbers would be exact, in whatever order.
    wide = torch.complex128 if spec.dtype.is_complex else torch.float64
    noise = torch.randn(min(tensor.numel(), _PERIOD), generator=generator, dtype=wide)
    if zeros:
        noise = torch.where(noise.abs() < 0.1, 0.0, noise)
    return tensor.copy_(_tiled(noise, tensor))


def _spread(error: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same numbers over some orders of magnitude: sums in another order are then likely to differ."""
    if 0 in error.stride() or not error.is_floating_point():
        return error
    scale = torch.exp2(torch.randint(-3, 4, (min(error.numel(), _PERIOD),), generator=generator))
    return error.mul_(_tiled(scale, error))


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[list[torch.Generator]]:
    """Puts the default generators back. (`torch.manual_seed` would format the stack for each kind of device.)"""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    try:
        yield generators
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _seed(generators: list[torch.Generator]) -> None:
    for generator in generators:
        generator.manual_seed(0)


def _tiled(numbers: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The numbers, again and again, in the shape and type of a tensor."""
    count = like.numel()
    times = -(-count // max(len(numbers), 1))
    return numbers.to(like.device, like.dtype).repeat(times)[:count].view(like.shape)


def _autograd(
    kind: Kind, wanted: Sequence[int], values: Sequence[torch.Tensor], arriving: Sequence[torch.Tensor]
) -> list[torch.Tensor | None]:
    leaves = [_copied(v).requires_grad_(i in wanted) for i, v in enumerate(values)]
    with torch.enable_grad():
        results = kind.call(leaves)
        roots = [results[j] for j, _ in kind.errors] + [leaves[i] for i, _ in kind.collected]
        gradients = torch.autograd.grad(roots, [leaves[i] for i in wanted], arriving, allow_unused=True)
    return [*(r.detach() for r in results), *gradients]


def _copied(value: torch.Tensor) -> torch.Tensor:
    """A copy of the very same layout; kernels lay out their results by those of their operands."""
    if 0 in value.stride() and value.numel() > 1:
        return value.detach()  # expanded memory, which nothing can write to
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device).copy_(value)


def _function(kind: Kind, program: LocalProgram) -> Callable[..., Any]:
    """The local program on its own: ``(values, errors) -> outputs and errors of the operands``."""
    results = [name or "None" for name in (*program.outputs, *(program.errors[i] for i in program.wanted))]
    arguments = [("values", [f"a{i}" for i in range(len(kind.operands))]), ("errors", kind.arrivals)]
    return emit("check", arguments, [*program.predict, *program.learn], [tuple(results)]).function


def _same(a: torch.Tensor, b: Any) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape or a.layout is not b.layout:
        return False
    if a.layout is not torch.strided:
        return torch.equal(a.to_dense(), b.to_dense())
    if torch.equal(a, b):
        return True
    if a.is_complex():
        a, b = torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj())
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) and torch.equal(a.isnan(), b.isnan())
