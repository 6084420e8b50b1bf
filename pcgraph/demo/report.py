"""The demo's results: a table for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import RenderableType
from rich.table import Table

from ..machine import machine, versions


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they bear on the figures."""
    return {"versions": versions(("numpy", "scikit-learn")), "machine": machine(torch.get_num_threads())}


def write(report: dict[str, Any], path: Path) -> None:
    """Write the report as JSON."""
    path.write_text(json.dumps(report, indent=2) + "\n")


def as_table(networks: list[dict[str, Any]]) -> RenderableType:
    """One row a network."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("network")
    for name in (
        "T",
        "steps",
        "accuracy: backprop",
        "Z-IL",
        "largest difference of weights",
        "of buffers",
        "step time: Z-IL / backprop",
    ):
        table.add_column(name, justify="right")
    for one in networks:
        table.add_row(
            one["network"],
            str(one["inference_steps_T"]),
            str(one["steps"]),
            f"{one['accuracy']['backprop']:.2%}",
            f"{one['accuracy']['z-il']:.2%}",
            f"{one['largest_weight_difference']:g}",
            f"{one['largest_buffer_difference']:g}",
            f"{one['step_time_ratio']:.2f}",
        )
    return table


def notes(networks: list[dict[str, Any]]) -> list[str]:
    """What the table needs to be understood, and every network that is not exact."""
    lines = []
    for one in networks:
        if "fused_kernel" in one:
            fused = one["fused_kernel"]
            lines.append(
                f"{one['network']}: compared with {one['reference']}. Beside it, backprop through the fused kernel: "
                f"largest difference of weights {fused['largest_weight_difference']:.1e}, "
                f"accuracy {one['accuracy']['fused']:.2%}, step time Z-IL / fused {fused['step_time_ratio']:.2f}."
            )
        if not one["exact"]:
            state = "" if one["same_random_state"] else ", and it used other random numbers"
            lines.append(f"{one['network']}: NOT EXACT, Z-IL did not end where backprop did{state}.")
    return lines
