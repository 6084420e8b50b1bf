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
_WORTH_IT = 128  # rows that a matrix is multiplied by: packing it takes what is saved by about so many

# Tiles of 6 rows and two vectors of columns stay in registers while they are summed up. `packed` has, for every block
# of the depth, panels of so many columns: [block][panel][depth in block][column]; what is missing in the last one is
# 0. Blocks are small enough for a panel and 6 rows to stay in the nearest cache.
_SOURCE = r"""
#include <torch/csrc/inductor/cpp_prefix.h>

constexpr int64_t W = at::vec::Vectorized<float>::size(), PANEL = 2 * W, BLOCK = 320, BAND = 120, ROWS = 6;
typedef float Vec __attribute__((vector_size(W * sizeof(float)), aligned(alignof(float)), may_alias));

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
            if (across == 1 && wide == PANEL) {
                for (int64_t n = 0; n < deep; ++n)
                    std::memcpy(packed + n * PANEL, from + n * down, PANEL * sizeof(float));
            } else if (across == 1) {
                for (int64_t n = 0; n < deep; ++n)
                    std::copy(from + n * down, from + n * down + wide, packed + n * PANEL);
            } else {
                // What is turned goes through registers, 8 by 8.
                const int64_t right = down == 1 ? wide / 8 * 8 : 0, bottom = down == 1 ? deep / 8 * 8 : 0;
                for (int64_t n = 0; n < bottom; n += 8)
                    for (int64_t c = 0; c < right; c += 8) {
                        const float* square = from + n + c * across;
                        at::vec::transpose_mxn<float, 8, 8>(square, across, packed + n * PANEL + c, PANEL);
                    }
                for (int64_t n = 0; n < deep; ++n)
                    for (int64_t c = n < bottom ? right : 0; c < wide; ++c)
                        packed[n * PANEL + c] = from[n * down + c * across];
            }
        }
    }
}

extern "C" void kernel(const float* a, const float* b, float* c, int64_t rows, int64_t depth, int64_t columns,
                       int64_t add, int64_t down, int64_t across) {
    if (rows) multiply(a, b, c, rows, columns, depth, add);
    else pack(b, c, columns, depth, down, across);
}
"""
_TYPES = ("const float*", "const float*", "float*", *("const int64_t",) * 6)
_COLUMNS = 32  # no panel is wider


class RightHand:
    """A matrix that stands still while others are multiplied by it. Whether it is packed shows at the first product.

    Args:
        matrix: [depth, columns], on the right of all products.
    """

    __slots__ = ("_decided", "_kernel", "_matrix", "_panels")

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix
        self._decided = False
        self._kernel: Callable[..., None] | None = None

    def times(self, a: torch.Tensor, out: torch.Tensor, left: int) -> None:
        """``out = a @ matrix``; there are so many products `left`, this one included."""
        if self._packed(a, out, left):
            self._multiply(a, out, 0)
        else:
            torch.mm(a, self._matrix, out=out)

    def plus(self, a: torch.Tensor, out: torch.Tensor, left: int) -> None:
        """``out += a @ matrix``."""
        if self._packed(a, out, left):
            self._multiply(a, out, 1)
        else:
            out.addmm_(a, self._matrix)

    def _multiply(self, a: torch.Tensor, out: torch.Tensor, add: int) -> None:
        assert self._kernel is not None
        self._kernel(a, self._panels, out, *a.shape, self._matrix.shape[1], add, 0, 0)

    def _packed(self, a: torch.Tensor, out: torch.Tensor, left: int) -> bool:
        if not self._decided:
            self._decided = True
            kernel = kernel_for(self._matrix, a.shape[0]) if left * a.shape[0] >= _WORTH_IT else None
            if kernel is not None:
                self.pack(kernel)
        # The kernel sees memory only: rows one after the other, and numbers with their own sign.
        return self._kernel is not None and a.is_contiguous() and out.is_contiguous() and not a.is_neg()

    def pack(self, kernel: Callable[..., None]) -> None:
        """Put the matrix into panels, for a kernel that reads them."""
        depth, columns = self._matrix.shape
        self._panels = torch.empty(-(-columns // _COLUMNS) * _COLUMNS * depth, dtype=torch.float32)
        kernel(self._matrix, self._matrix, self._panels, 0, depth, columns, 0, *self._matrix.stride())
        self._decided, self._kernel = True, kernel


def kernel_for(matrix: torch.Tensor, rows: int) -> Callable[..., None] | None:
    """The kernel for products of so many rows with a matrix; None if the library is as good, or the only one."""
    if not _possible(matrix, rows):
        return None
    key = (rows, *matrix.shape, matrix.stride(1) == 1)
    if key not in _quicker:
        _quicker[key] = _trial(rows, matrix)
    return _quicker[key]


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
    contenders = (RightHand(b), RightHand(b))
    contenders[1].pack(kernel)
    outs = [torch.full((rows, columns), 0.5) for _ in contenders]
    exact = a.double() @ b.double()
    for contender, out in zip(contenders, outs, strict=True):
        contender.times(a, out, 0)
    first = [out.clone() for out in outs]
    for contender, out in zip(contenders, outs, strict=True):
        contender.plus(a, out, 0)
    for (library, own), wide in ((first, exact), (outs, 2 * exact)):
        if objection([a, b], [library], [own], partial(list, [wide])) is not None:
            return None
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for contender, out, taken in zip(contenders, outs, seconds, strict=True):
            start = time.perf_counter()
            contender.times(a, out, 0)
            taken.append(time.perf_counter() - start)
    return kernel if min(seconds[1]) < _MARGIN * min(seconds[0]) else None


def _compiled() -> Callable[..., None] | None:
    from torch._inductor.codecache import CppPythonBindingsCodeCache

    try:
        return CppPythonBindingsCodeCache.load_pybinding(_TYPES, _SOURCE)
    except Exception:  # no C++ compiler: the library is as good, only slower
        return None
