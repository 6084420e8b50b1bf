"""Products with a packed matrix: right for all sizes, and used only where they are right and quicker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pcgraph.codegen.inductor import product
from pcgraph.codegen.inductor.product import RightHand

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def kernel() -> Callable[..., None]:
    found = product._compiled()
    assert found is not None
    return found


def packed(matrix: torch.Tensor, kernel: Callable[..., None]) -> RightHand:
    right = RightHand(matrix)
    right.pack(kernel)
    return right


def tensors(rows: int, depth: int, columns: int, turned: bool) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows + depth + columns)
    a = torch.randn(rows, depth, generator=draw)
    matrix = torch.randn(columns, depth, generator=draw).t() if turned else torch.randn(depth, columns, generator=draw)
    return a, matrix


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 64, 121, 250])
@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (3, 16), (300, 10), (10, 33), (319, 31), (321, 16), (700, 47)])
def test_equals_float64(kernel: Callable[..., None], rows: int, depth: int, columns: int, turned: bool) -> None:
    a, matrix = tensors(rows, depth, columns, turned)
    right, out = packed(matrix, kernel), torch.full((rows, columns), float("nan"))
    exact = a.double() @ matrix.double()
    bound = 2**-22 * (a.double().abs() @ matrix.double().abs()).max()
    right.times(a, out, 0)
    assert (out - exact).abs().max() < bound
    right.plus(a, out, 0)
    assert (out - 2 * exact).abs().max() < 2 * bound


def test_what_is_infinite_stays_where_it_is(kernel: Callable[..., None]) -> None:
    a, matrix = tensors(7, 20, 18, False)
    a[2, 3], a[4, 5] = float("inf"), float("nan")
    out = torch.empty(7, 18)
    packed(matrix, kernel).times(a, out, 0)
    torch.testing.assert_close(out, a @ matrix, equal_nan=True)


def test_a_sign_that_is_not_in_memory(kernel: Callable[..., None]) -> None:
    a, matrix = tensors(7, 20, 18, False)
    negative = torch._neg_view(a)
    assert negative.is_neg() and negative.is_contiguous()
    out = torch.empty(7, 18)
    packed(matrix, kernel).times(negative, out, 0)
    torch.testing.assert_close(out, -(a @ matrix))


@pytest.mark.parametrize("which", ["value", "result"])
def test_other_layouts_go_to_the_library(kernel: Callable[..., None], which: str) -> None:
    a, matrix = tensors(7, 20, 18, False)
    out = torch.empty(18, 7).t() if which == "result" else torch.empty(7, 18)
    given = a.t().contiguous().t() if which == "value" else a
    right = packed(matrix, kernel)
    right.times(given, out, 0)
    torch.testing.assert_close(out, a @ matrix)
    right.plus(given, out, 0)
    torch.testing.assert_close(out, 2 * (a @ matrix))


@pytest.mark.parametrize(
    ("why", "matrix"),
    [
        ("another type", torch.ones(300, 300, dtype=torch.float64)),
        ("gaps in both directions", torch.ones(600, 600)[::2, ::2]),
        ("too large", torch.ones(1, 1).expand(30000, 30000)),
    ],
)
def test_what_cannot_be_packed(why: str, matrix: torch.Tensor) -> None:
    assert product.kernel_for(matrix, 64) is None, why


def test_one_product_is_not_worth_packing_for(monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., None]) -> None:
    monkeypatch.setattr(product, "_trial", lambda rows, matrix: kernel)
    monkeypatch.setattr(product, "_quicker", {})
    a, out = torch.ones(64, 300), torch.empty(64, 300)

    def is_packed(left: int) -> bool:
        right = RightHand(torch.ones(300, 300))
        right.times(a, out, left)
        right.plus(a, out, left + 10)  # decided by then
        assert torch.equal(out, torch.full((64, 300), 600.0))
        return right._kernel is not None

    assert not is_packed(1) and is_packed(2) and is_packed(20)
    torch.set_num_threads(2)
    assert not is_packed(20)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        assert not is_packed(20)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_wrong_kernel_loses_the_trial(monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., None]) -> None:
    def wrong(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, *sizes: int) -> None:
        kernel(a, b, out, *sizes)
        if sizes[0]:
            out[0, 0] += 0.01

    monkeypatch.setattr(product, "_MARGIN", float("inf"))  # however slow
    matrix = torch.ones(30, 20)
    monkeypatch.setattr(product, "_native", [kernel])
    assert product._trial(8, matrix) is kernel
    monkeypatch.setattr(product, "_native", [wrong])
    assert product._trial(8, matrix) is None
    monkeypatch.setattr(product, "_native", [None])  # no compiler
    assert product._trial(8, matrix) is None
