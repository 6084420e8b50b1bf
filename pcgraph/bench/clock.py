"""Clocks: what one step took, by the wall, in the processor and on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

Taken = dict[str, float]
Read = Callable[[Callable[[], object]], Taken]


def clock(device: torch.device) -> Read:
    """Something that runs a step to completion and returns its seconds by clock.

    ``wall`` is the time that passed, synchronised with the device before and after. ``cpu`` is processor time of all
    threads; with one thread it is the steadier of the two on a machine that is not at rest. ``device``, on
    accelerators only, is the time between two events in the device's queue.
    """
    if device.type == "cpu":
        return _on_the_cpu
    place: Any = getattr(torch, device.type)  # torch.cuda, torch.mps

    def read(step: Callable[[], object]) -> Taken:
        start, end = place.Event(enable_timing=True), place.Event(enable_timing=True)
        place.synchronize()
        cpu, wall = time.process_time(), time.perf_counter()
        start.record()
        step()
        end.record()
        place.synchronize()
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        return taken | {"device": start.elapsed_time(end) / 1000}

    return read


def _on_the_cpu(step: Callable[[], object]) -> Taken:
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
