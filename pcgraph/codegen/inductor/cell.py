"""Cells: regions compiled once and used wherever the same computation stands, as often as it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ..emit import emit
from ..lines import Line
from ..lock import LOCK
from ..precision import settings, without_autocast
from .proof import objection
from .regions import Region
from .torch_inductor import Kernel, compiled, placed

_MOST = 4096
_cells: dict[Any, Cell] = {}


@dataclass(frozen=True)
class Cell:
    """A region as a function of a list, which it empties.

    Attributes:
        function: compiled, or the emitted lines.
        reason: why it is the lines; None if it is compiled.
    """

    function: Kernel
    reason: str | None


class Site:
    """A place in a program where a region stands; compiled at its first call.

    Args:
        region: over canonical names.
        key: of the region.
        checked: compare sizes and strides at every call, since it is not known ahead how some arguments are laid out.
        graphs: record CUDA graphs.
        label: what people call the region.
        complaints: receives the reason, by label, if the region stays as emitted.
        places: per result, the argument whose memory it is written into; None where all results are returned.

    Attributes:
        call: what the program calls, as the only element; replaced at the first call.
    """

    def __init__(
        self,
        region: Region,
        key: Any,
        *,
        checked: bool,
        graphs: bool,
        label: str,
        complaints: dict[str, str],
        places: tuple[int | None, ...] | None = None,
    ) -> None:
        self._region, self._key, self._checked, self._graphs = region, key, checked, graphs
        self._label, self._complaints, self._places = label, complaints, places
        self.call: list[Kernel] = [self._first]

    def _first(self, values: list[torch.Tensor]) -> Sequence[Any]:
        cell = self._cell(values)
        if cell.reason is not None:
            self._complaints[self._label] = cell.reason
        self.call[0] = cell.function
        return cell.function(values)

    def _cell(self, values: list[torch.Tensor]) -> Cell:
        if not all(map(_plain, values)):
            return Cell(self._emitted(), "an argument is not a plain strided tensor")
        if self._places is not None and _overlapping(values, self._places):
            return Cell(self._emitted(), "two arguments share memory, and one of them is written")
        key = (self._key, tuple(map(_layout, values)), self._checked, self._graphs, torch.get_num_threads(), settings())
        with LOCK, without_autocast():
            cell = _cells.get(key)
            if cell is None:
                while len(_cells) >= _MOST:
                    _cells.pop(next(iter(_cells)))
                cell = _cells[key] = self._build(values)
        return cell

    def _emitted(self) -> Kernel:
        """The lines one by one, results in their places."""
        lines, places = _lines(self._region), self._places
        return lines if places is None else lambda values: placed(lines, values, places)

    def _build(self, values: list[torch.Tensor]) -> Cell:
        lines = _lines(self._region)
        try:
            fused = compiled(lines, values, checked=self._checked, graphs=self._graphs, places=self._places)
            with torch.no_grad():
                if self._places is not None:  # errors may be 0 at first, which proves nothing
                    values = list(map(_shaken, values))
                exact = partial(_in_float64, self._region, values)
                reason = objection(values, self._results(self._emitted(), values), self._results(fused, values), exact)
        except Exception as error:  # of Inductor, of the C++ compiler: the lines are as good, only slower
            message = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {message[0] if message else ''}"
        return Cell(self._emitted(), reason) if reason is not None else Cell(fused, None)

    def _results(self, function: Kernel, values: list[torch.Tensor]) -> Sequence[Any]:
        """All results of a function, with nothing written but copies."""
        if self._places is None:
            return function(list(values))
        copies = [value.clone() if k in self._places else value for k, value in enumerate(values)]
        returned = iter(function(list(copies)))
        return [next(returned) if place is None else copies[place] for place in self._places]


def _shaken(value: torch.Tensor) -> torch.Tensor:
    """A tensor of the same layout near this one; the user's random state stays as it is."""
    copy = value.clone()
    if not value.is_floating_point() or copy.stride() != value.stride():
        return value
    generator = torch.Generator(value.device).manual_seed(0)
    noise = torch.randn(value.shape, generator=generator, device=value.device, dtype=torch.float32)
    return copy.add_(noise.to(value.dtype), alpha=0.5)


def _overlapping(values: Sequence[torch.Tensor], places: Sequence[int | None]) -> bool:
    """Whether what is written is also another argument."""
    memories = [value.untyped_storage()._cdata for value in values]
    return any(memories.count(memories[place]) > 1 for place in places if place is not None)


def _lines(region: Region) -> Kernel:
    """The lines of a region as they stand, as a function of a list."""
    emitted = emit("region", [("values", region.reads)], region.lines, [region.outs])
    function: Kernel = emitted.function
    return function


def _in_float64(region: Region, values: Sequence[torch.Tensor]) -> Sequence[Any]:
    wide = replace(region, lines=tuple(map(_widened, region.lines)))
    return _lines(wide)([value.double() if value.is_floating_point() else value for value in values])


def _widened(line: Line) -> Line:
    text = line.text
    for narrow in ("float32", "bfloat16", "float16"):
        text = text.replace(f"torch.{narrow}", "torch.float64")
    return replace(line, text=text)


def _plain(value: Any) -> bool:
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or value.layout is not torch.strided:
        return False
    return not (value.is_complex() or value.is_neg() or value.device.type == "meta")


def _layout(value: torch.Tensor) -> Any:
    return value.shape, value.stride(), value.dtype, value.device
