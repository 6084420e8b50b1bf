"""The form that a program takes under Inductor: lists of arguments, calls of compiled regions, single lines between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...graph import TensorSpec
from ..buffers import Scratch
from ..emit import Emitted, emit
from ..lines import Line, fresh_name
from ..stretch import Stretch
from .cell import Site
from .fusable import fusable, is_product, operator_name
from .merge import merged
from .regions import Region, gathered, region_of, sunk, worth_it
from .repeats import cut
from .ssa import single_assignment
from .step import Calls


class Inductor:
    """Back end that hands stretches of lines to torch's compiler.

    Args:
        mode: ``default``, or ``reduce-overhead`` for CUDA graphs.
    """

    exact = False

    def __init__(self, mode: str = "default") -> None:
        self.key: tuple[str, ...] = ("inductor", mode)
        self._graphs = mode == "reduce-overhead"
        self._uncompiled: dict[str, str] = {}

    @property
    def uncompiled(self) -> dict[str, str]:
        """Regions that stay lines, and why."""
        return self._uncompiled

    def emit(
        self,
        name: str,
        arguments: Sequence[tuple[str, Sequence[str]]],
        lines: Sequence[Line],
        returns: Sequence[tuple[str, ...]],
    ) -> Emitted:
        """The lines as a function, in regions as far as that is possible; see `emit.emit`."""
        lines, returns = single_assignment(lines, returns)
        checked = any(line.target is None and line.constants for line in lines)  # opaque vertices: who knows
        stretches = sunk([piece for stretch in gathered(merged(lines, returns)) for piece in cut(stretch)])
        used: set[str] = {item for group in returns for item in group}
        formed: list[list[Line]] = []
        shown: dict[Any, str] = {}  # regions for people, by key
        for stretch in reversed(stretches):
            if worth_it(stretch):
                formed.append(self._called(name, stretch, used, checked, shown))
            else:
                formed.append(stretch)
            used.update(read for line in stretch for read in line.reads)
        formed.reverse()
        emitted = emit(name, arguments, [line for part in formed for line in part], returns)
        return Emitted(emitted.function, emitted.source + "".join(shown.values()))

    def takes(self, line: Line) -> bool:
        """Pure calls of ATen operators."""
        return fusable(line)

    def multiplies(self, line: Line) -> bool:
        """What goes to a library."""
        return is_product(line)

    def stretch(self, stretch: Stretch, scratch: Scratch) -> list[Line] | None:
        """Products as they are, one kernel for everything between two; see `step`."""
        return Calls(stretch, scratch, self._kernel).lines

    def alone(self, line: Line, spec: TensorSpec) -> Line:
        """Our own tanh instead of the library's; everything else as it is."""
        if operator_name(line) != "tanh" or spec.dtype is not torch.float32 or spec.device.type != "cpu":
            return line
        call = self._kernel(Region((line,), line.reads, line.outs), (None,))
        return Line(line.outs, call.text, call.reads, call.constants)

    def _kernel(self, region: Region, places: tuple[int | None, ...]) -> Line:
        canonical, key = region.canonical()
        label = f"infer: {len(region.lines)} lines, {_first_out(region.lines)} to {_first_out(region.lines[::-1])}"
        shared: Any = {"graphs": self._graphs, "label": label, "complaints": self._uncompiled}
        site = Site(canonical, (key, places), checked=False, places=places, **shared)
        function = fresh_name()
        text = f"{function}[0]([{', '.join(['%s'] * len(region.reads))}])"
        if places.count(None) == 1:
            text += "[0]"
        return Line((), text, region.reads, ((function, site.call),))

    def _called(
        self, name: str, stretch: Sequence[Line], used: set[str], checked: bool, shown: dict[Any, str]
    ) -> list[Line]:
        region = region_of(stretch, used)
        canonical, key = region.canonical()
        label = f"{name}: {len(region.lines)} lines, {_first_out(region.lines)} to {_first_out(region.lines[::-1])}"
        site = Site(canonical, key, checked=checked, graphs=self._graphs, label=label, complaints=self._uncompiled)
        function, values = fresh_name(), fresh_name()
        if key not in shown:
            body = "".join(f"#   {line.render()}\n" for line in canonical.lines)
            shown[key] = f"\n# {function}, one region: {', '.join(canonical.reads)}\n{body}"
        literal = f"[{', '.join(['%s'] * len(region.reads))}]"
        text = f"{function}[0](%s)" + ("[0]" if len(region.outs) == 1 else "")
        return [
            Line((values,), literal, region.reads),  # the names die here, and the values with their last use inside
            Line(region.outs, text, (values,), ((function, site.call),)),
        ]


def _first_out(lines: Sequence[Line]) -> str:
    return next((line.outs[0] for line in lines if line.outs), "")
