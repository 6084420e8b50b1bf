"""Versions and machine, as far as they bear on a figure. Names no host, no user and no path."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def versions(others: Sequence[str] = ()) -> dict[str, str]:
    """Of Python, pcgraph, torch and further packages."""
    import pcgraph

    found = {"python": platform.python_version(), "pcgraph": pcgraph.__version__, "torch": torch.__version__}
    for name in others:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """System, processor, cores, memory, load, threads of torch, and the accelerator if one is used."""
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "load": load(),
        "torch_threads": threads,
        "device": device,
        "accelerator": torch.cuda.get_device_name() if device.startswith("cuda") else None,
    }


def load() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where the system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def memory_bytes() -> int | None:
    """Of the machine, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
