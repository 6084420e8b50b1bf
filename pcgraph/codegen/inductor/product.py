"""Products with a matrix that stands still, as a weight does during inference.

A library packs a matrix anew at every product: it puts the columns that a kernel works on side by side. For the small
matrices of a step that is a sixth of the time. Here a weight is packed once, before the steps. Which of the two is
quicker for a shape, a trial of some milliseconds tells, once in a process; it also holds the result against float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from .proof import objection

_LARGEST = 1 << 27  # multiplications: beyond that packing is nothing to a product
_ROUNDS = 9
_MARGIN = 0.95  # of the library's time

# Tiles of 6 rows and two vectors of columns stay in registers while they are summed up. `packed` has, for every block
# of the depth, panels of so many columns: [block][panel][depth in block][column]; what is missing in the last one is
# 0. Blocks are small enough for a panel and 6 rows to stay in the nearest cache.
_SOURCE = r"""
#include <torch/csrc/inductor/cpp_prefix.h>

constexpr int64_t W = at::vec::Vectorized<float>::size(), PANEL = 2 * W, BLOCK = 320, BAND = 120, ROWS = 6;
typedef float Vec __attribute__((vector_size(W * sizeof(float)), aligned(alignof(float))));

static int64_t block_of(int64_t depth) {
    const int64_t blocks = (depth + BLOCK - 1) / BLOCK;
    return (depth + blocks - 1) / blocks;
}

template <int R>
#ifndef __clang__
__attribute__((noinline, optimize("fp-contract=fast")))
#endif
void tile(
    const float* a, int64_t lda, const float* b, int64_t depth, float* c, int64_t ldc, int64_t columns, bool add
) {
#ifdef __clang__
#pragma clang fp contract(fast)
#endif
    Vec left[R] = {}, right[R] = {};
    for (int64_t k = 0; k < depth; ++k) {
        const Vec p = *(const Vec*)(b + k * PANEL), q = *(const Vec*)(b + k * PANEL + W);
        _Pragma("GCC unroll 8")
        for (int r = 0; r < R; ++r) {
            const float x = a[r * lda + k];
            left[r] += x * p;
            right[r] += x * q;
        }
    }
    float sums[PANEL];
    _Pragma("GCC unroll 8")
    for (int r = 0; r < R; ++r) {
        Vec *to = (Vec*)(c + r * ldc), *next = (Vec*)(c + r * ldc + W);
        if (columns == PANEL) {
            *to = add ? *to + left[r] : left[r];
            *next = add ? *next + right[r] : right[r];
        } else {
            *(Vec*)sums = left[r];
            *(Vec*)(sums + W) = right[r];
            for (int64_t j = 0; j < columns; ++j) c[r * ldc + j] = add ? c[r * ldc + j] + sums[j] : sums[j];
        }
    }
}

static void multiply(
    const float* a, const float* packed, float* c, int64_t rows, int64_t columns, int64_t depth, bool add
) {
    const int64_t panels = (columns + PANEL - 1) / PANEL, block = block_of(depth);
    for (int64_t k = 0; k < depth; k += block, add = true) {
        const int64_t deep = std::min(block, depth - k);
        for (int64_t top = 0; top < rows; top += BAND) {
            const int64_t bottom = std::min(rows, top + BAND);
            for (int64_t j = 0; j < panels; ++j) {
                const float* b = packed + (k * panels + j * deep) * PANEL;
                const int64_t wide = std::min(PANEL, columns - j * PANEL);
                for (int64_t i = top; i < bottom; i += ROWS) {
                    const float* x = a + i * depth + k;
                    float* y = c + i * columns + j * PANEL;
                    switch (std::min(ROWS, bottom - i)) {
                        case 6: tile<6>(x, depth, b, deep, y, columns, wide, add); break;
                        case 5: tile<5>(x, depth, b, deep, y, columns, wide, add); break;
                        case 4: tile<4>(x, depth, b, deep, y, columns, wide, add); break;
                        case 3: tile<3>(x, depth, b, deep, y, columns, wide, add); break;
                        case 2: tile<2>(x, depth, b, deep, y, columns, wide, add); break;
                        default: tile<1>(x, depth, b, deep, y, columns, wide, add);
                    }
                }
            }
        }
    }
}

static void pack(const float* b, float* packed, int64_t columns, int64_t depth, int64_t down, int64_t across) {
    const int64_t block = block_of(depth);
    for (int64_t k = 0; k < depth; k += block) {
        const int64_t deep = std::min(block, depth - k);
        for (int64_t j = 0; j < columns; j += PANEL, packed += deep * PANEL) {
            const int64_t wide = std::min(PANEL, columns - j);
            const float* from = b + k * down + j * across;
            for (int64_t n = 0; n < deep; ++n)
                for (int64_t c = wide; c < PANEL; ++c) packed[n * PANEL + c] = 0;
            if (across == 1) {
                for (int64_t n = 0; n < deep; ++n)
                    std::copy(from + n * down, from + n * down + wide, packed + n * PANEL);
            } else {
                for (int64_t c = 0; c < wide; ++c)
                    for (int64_t n = 0; n < deep; ++n) packed[n * PANEL + c] = from[n * down + c * across];
            }
        }
    }
}

extern "C" void kernel(const float* a, const float* b, float* c, int64_t rows, int64_t columns, int64_t depth,
                       int64_t add, int64_t down, int64_t across) {
    if (rows) multiply(a, b, c, rows, columns, depth, add);
    else pack(b, c, columns, depth, down, across);
}
"""
_TYPES = ("const float*", "const float*", "float*", *("const int64_t",) * 6)
_COLUMNS = 32  # no panel is wider


class Library:
    """The library's products with a matrix.

    Args:
        matrix: what stands on the right.
    """

    __slots__ = ("_matrix",)

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    def times(self, a: torch.Tensor, out: torch.Tensor) -> None:
        """``out = a @ matrix``."""
        torch.mm(a, self._matrix, out=out)

    def plus(self, a: torch.Tensor, out: torch.Tensor) -> None:
        """``out += a @ matrix``."""
        out.addmm_(a, self._matrix)


class Packed(Library):
    """The same with the matrix packed; whatever is not laid out row by row goes to the library."""

    __slots__ = ("_columns", "_depth", "_kernel", "_panels")

    def __init__(self, matrix: torch.Tensor, kernel: Callable[..., None]) -> None:
        super().__init__(matrix)
        self._depth, self._columns = matrix.shape
        self._kernel = kernel
        size = -(-self._columns // _COLUMNS) * _COLUMNS * self._depth
        self._panels = torch.empty(size, dtype=torch.float32)
        kernel(matrix, matrix, self._panels, 0, self._columns, self._depth, 0, *matrix.stride())

    def times(self, a: torch.Tensor, out: torch.Tensor) -> None:
        """``out = a @ matrix``."""
        if a.is_contiguous() and out.is_contiguous():
            self._kernel(a, self._panels, out, a.shape[0], self._columns, self._depth, 0, 0, 0)
        else:
            super().times(a, out)

    def plus(self, a: torch.Tensor, out: torch.Tensor) -> None:
        """``out += a @ matrix``."""
        if a.is_contiguous() and out.is_contiguous():
            self._kernel(a, self._panels, out, a.shape[0], self._columns, self._depth, 1, 0, 0)
        else:
            super().plus(a, out)


def right_hand(matrix: torch.Tensor, rows: int, times: int) -> Library:
    """Products with a matrix that stands still meanwhile.

    Args:
        matrix: [depth, columns], on the right of all products.
        rows: of what stands on the left.
        times: how many products there will be.
    """
    if times * rows < matrix.shape[0] or not _possible(matrix, rows):
        return Library(matrix)  # packing takes the time of some dozen rows
    key = (rows, *matrix.shape, matrix.stride(1) == 1)
    if key not in _quicker:
        _quicker[key] = _trial(rows, matrix)
    kernel = _quicker[key]
    return Library(matrix) if kernel is None else Packed(matrix, kernel)


_quicker: dict[Any, Callable[..., None] | None] = {}  # by sizes and order, the kernel where it won
_native: list[Callable[..., None] | None] = []  # the kernel, once it was asked for


def _possible(matrix: torch.Tensor, rows: int) -> bool:
    return (
        matrix.dtype is torch.float32
        and matrix.device.type == "cpu"
        and type(matrix) in (torch.Tensor, torch.nn.Parameter)
        and not matrix.is_neg()
        and 1 in matrix.stride()
        and 0 < rows * matrix.numel() <= _LARGEST
        and torch.get_num_threads() == 1  # the library knows how to share work
        and not torch.are_deterministic_algorithms_enabled()  # what is quicker may be another one tomorrow
    )


def _trial(rows: int, matrix: torch.Tensor) -> Callable[..., None] | None:
    """The kernel, if it is right and quicker for these sizes."""
    if not _native:
        _native.append(_compiled())
    kernel = _native[0]
    if kernel is None:
        return None
    draw = torch.Generator().manual_seed(0)
    depth, columns = matrix.shape
    a = torch.randn(rows, depth, generator=draw)
    b = torch.empty_strided(matrix.shape, matrix.stride()).copy_(torch.randn(depth, columns, generator=draw))
    contenders = (Library(b), Packed(b, kernel))
    outs = [torch.full((rows, columns), 0.5) for _ in contenders]
    exact = a.double() @ b.double()
    for contender, out in zip(contenders, outs, strict=True):
        contender.times(a, out)
    first = [out.clone() for out in outs]
    for contender, out in zip(contenders, outs, strict=True):
        contender.plus(a, out)
    for (library, own), wide in ((first, exact), (outs, 2 * exact)):
        if objection([a, b], [library], [own], partial(list, [wide])) is not None:
            return None
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for contender, out, taken in zip(contenders, outs, seconds, strict=True):
            start = time.perf_counter()
            contender.times(a, out)
            taken.append(time.perf_counter() - start)
    return kernel if min(seconds[1]) < _MARGIN * min(seconds[0]) else None


def _compiled() -> Callable[..., None] | None:
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    try:
        return CppPythonBindingsCodeCache.load_pybinding(_TYPES, _SOURCE)
    except Exception:  # no C++ compiler: the library is as good, only slower
        return None
