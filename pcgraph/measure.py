"""Measuring one training step: time side by side, peak tensor memory, distance in units in the last place."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from typing import TypeVar

import torch

Taken = TypeVar("Taken")
_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def alternate(
    steps: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2, seed: int = 0
) -> dict[str, list[float]]:
    """Seconds of each step in every round of a `race`.

    Args:
        steps: what to time, by name; each runs to completion (devices are synchronised).
        rounds: how often each is timed.
        warmup: how often each runs before.
        seed: of the shuffling.
    """
    for _ in range(warmup):
        for step in steps.values():
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for taken in race(steps, rounds, _wall, seed=seed):
        for name, one in taken.items():
            seconds[name].append(one)
    return seconds


def race(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    read: Callable[[Callable[[], object]], Taken],
    *,
    every: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Generator[dict[str, Taken], None, None]:
    """Rounds in which each step runs once, in an order shuffled anew every time, since a fixed order is unfair.

    Python's garbage collector is off until the last round is over or the iterator is closed.

    Args:
        steps: what to time, by name.
        rounds: how many, at most.
        read: runs a step to completion and says what it took.
        every: steps that take part in every k-th round only, beginning with the first.
        seed: of the shuffling.

    Yields:
        What each step took in one round, by name.
    """
    generator = random.Random(seed)
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for k in range(rounds):
            order = [name for name in steps if every is None or k % every.get(name, 1) == 0]
            generator.shuffle(order)
            yield {name: read(steps[name]) for name in order}
    finally:
        if was_enabled:
            gc.enable()


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """Median over the rounds of the ratio of two steps."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def _wall(step: Callable[[], object]) -> float:
    _synchronize()
    start = time.perf_counter()
    step()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory(step: Callable[[], object], runs: int = 3) -> int:
    """Bytes of tensor memory that `step` holds at its peak beyond what is held before it.

    On the CPU from the profiler's allocation events, on CUDA from the allocator's statistics. The median of three
    `runs`: the first counts what the profiler's start and the run before it left to be freed.
    """
    return sorted(_peak(step) for _ in range(runs))[runs // 2]


def _peak(step: Callable[[], object]) -> int:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    held = peak = 0
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def ulps(a: torch.Tensor, b: torch.Tensor) -> int:
    """Largest distance between two tensors of one floating dtype, in units in the last place.

    >>> ulps(torch.tensor([1.0]), torch.tensor([1.0 + 2**-23]))
    1
    >>> ulps(torch.tensor([0.0]), torch.tensor([-0.0]))
    0
    """
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    if a.numel() == 0 or torch.equal(a, b):
        return 0

    def ordered(t: torch.Tensor) -> torch.Tensor:
        bits = t.detach().contiguous().view(_INTEGER[t.element_size()]).to(torch.int64)
        lowest = -(2 ** (8 * t.element_size() - 1))
        return torch.where(bits < 0, lowest - bits, bits)

    both_nan = torch.isnan(a) & torch.isnan(b)
    gap = (ordered(a) - ordered(b)).abs()
    return int(torch.where(both_nan.reshape(gap.shape), 0, gap).max())


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bitwise equality: like `torch.equal`, but a NaN equals the same NaN and 0.0 differs from -0.0.

    >>> same_bits(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    True
    """
    if a.dtype != b.dtype or a.shape != b.shape or a.device != b.device or a.layout != b.layout:
        return False
    if a.layout is not torch.strided:
        return torch.equal(a.to_dense(), b.to_dense())
    if a.dtype is torch.bool or a.numel() == 0:
        return torch.equal(a, b)
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    integer = _INTEGER[a.element_size()]
    return torch.equal(a.detach().contiguous().view(integer), b.detach().contiguous().view(integer))
