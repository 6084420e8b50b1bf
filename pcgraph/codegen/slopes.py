"""The error of a loss's arguments without the loss itself: its Z-IL program, as far as the errors need it.

Inference asks for ``dL/dmu`` at every step, and for the loss at none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..graph import Role
from .lines import Line
from .moves import needed

if TYPE_CHECKING:
    from .program import Program


def slopes(program: Program) -> Callable[[list[Any]], list[Any]] | None:
    """``values -> errors``: values of the externals, and 1 as the error of the only output.

    Returns:
        None where leaving out a part could be noticed: it draws random numbers, writes, or has several segments.
    """
    operations = [v for v in program.graph.vertices.values() if v.role is Role.OPERATION]
    if len(program.saved) != 1 or len(program.graph.outputs) != 1 or program.opaque:
        return None
    if any(
        v.effect or v.checkpoint or (v.operation and (v.operation.random or v.operation.writes)) for v in operations
    ):
        return None
    results = tuple(name or "None" for name in program.learn_lines[0].results)
    lines: list[Line] = needed([*program.predict_lines.lines, *program.learn_lines[0].lines], results)
    spec = program.graph.spec(program.graph.outputs[0])
    one = f"torch.ones({tuple(spec.shape)}, dtype={spec.dtype}, device={str(spec.device)!r})"
    seed = Line(("arriving0",), one, (), (), torch.ops.aten.ones.default)
    arguments = [("values", [f"x_{name}" for name in program.externals])]
    return program.backend.emit("slopes", arguments, [seed, *lines], [results]).function
