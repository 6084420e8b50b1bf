"""A fast sample of `python -m tests.opinfo`: every operation and every module once, in single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
import torch
from torch import nn

import pcgraph
from tests.opinfo.cases import Case, Role
from tests.opinfo.exceptions import complaints
from tests.opinfo.operations import OfParameters, Sample, of_inputs
from tests.opinfo.plan import Piece, everything
from tests.opinfo.records import run
from tests.opinfo.verdict import Class, judge

SHARDS = 8  # tests, so that workers of pytest-xdist can share them
SAMPLES = 1


def shard(number: int) -> list[Piece]:
    """The part of the sample that one test runs, by a hash of the name: operands as parameters, modules in training."""
    pieces = []
    for piece in everything(SAMPLES):
        if crc32(piece.name.encode()) % SHARDS == number and piece.dtype in (torch.float32, torch.complex64):
            roles = (Role.TRAIN,) if piece.module else (Role.PARAMETER,)
            pieces.append(Piece(piece.module, piece.place, piece.name, piece.dtype, SAMPLES, roles))
    return pieces


@pytest.mark.parametrize("number", range(SHARDS))
def test_every_operation(number: int) -> None:
    records = [record for piece in shard(number) for record in run(piece)]
    assert records
    wrong = complaints(records)
    assert not wrong, "\n".join(wrong)


# -- the harness itself ------------------------------------------------------------------------------------
X = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()


def case_of(operation: Callable[..., Any]) -> Case:
    sample = Sample((X, torch.tensor(2.0)), {})
    return Case("f", Role.INPUT, torch.float32, 0, lambda: of_inputs(operation, sample))


def disturbing(change: Callable[[Any], Any]) -> Callable[[nn.Module], Callable[..., Any]]:
    return lambda model: lambda *args: change(model(*args))


@pytest.mark.parametrize(
    ("compiler", "found"),
    [
        (disturbing(lambda out: out * (1 + 2**-22)), "output 0: "),
        (disturbing(lambda out: out.detach()), "output 0 needs a gradient: True against False"),
        (disturbing(lambda out: out + (torch.rand(()) - 2).clamp(0, 0)), "random state of torch"),
        (disturbing(lambda out: (out, out)), "exist on one side only"),
        (lambda model: lambda x, y: model(x, y.detach()), "gradient of argument 1: a tensor against None"),
    ],
    ids=["value", "detached", "random", "structure", "gradient"],
)
def test_what_is_wrong_is_found(compiler: Callable[[nn.Module], Callable[..., Any]], found: str) -> None:
    sample = Sample((X, torch.tensor(2.0, requires_grad=True)), {})
    case = Case("f", Role.INPUT, torch.float32, 0, lambda: of_inputs(torch.mul, sample))
    verdict = judge(case, compiler)
    assert verdict.result is Class.WRONG and found in verdict.reason


def test_a_program_that_holds_for_one_value_only_is_found() -> None:
    def constant(model: nn.Module) -> Callable[..., Any]:
        kept: list[torch.Tensor] = []

        def call(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            kept.append(y.detach().clone())
            return model(x, kept[0])

        return call

    verdict = judge(case_of(torch.mul), constant)
    assert verdict.result is Class.WRONG and verdict.reason.startswith("on zeros and ties")


@pytest.mark.parametrize(
    ("operation", "result"),
    [
        (lambda x, y: (x * y).contiguous(), Class.BITWISE),
        (lambda x, y: x[x > 0] * y, Class.OPAQUE),
        (lambda x, y: x.detach() * y, Class.SILENT),
        (lambda x, y: x.float_power_(y), Class.SKIPPED),
        (lambda x, y: x * torch.Generator().seed(), Class.UNSTABLE),
    ],
    ids=["bitwise", "opaque", "no gradient", "raises", "nondeterministic"],
)
def test_classes(operation: Callable[..., Any], result: Class) -> None:
    assert judge(case_of(operation), pcgraph.compile).result is result


def test_operands_that_share_memory_still_do() -> None:
    base = torch.arange(6.0)
    args, kwargs = (base[:4], [base[2:], base[:1].expand(3)]), {"same": base}
    model = OfParameters(lambda *a, **k: a[0], Sample(args, kwargs), every=True)
    tensors = dict(model.named_parameters())
    assert len({t.untyped_storage().data_ptr() for t in tensors.values()}) == 1
    assert [t.stride() for t in tensors.values()] == [(1,), (1,), (0,), (1,)]
    assert all(t.untyped_storage().data_ptr() != base.untyped_storage().data_ptr() for t in tensors.values())
