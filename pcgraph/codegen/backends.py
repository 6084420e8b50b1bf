"""Back ends: what becomes of emitted lines.

A program is a list of lines, one ATen call each. The eager back end writes them down as they stand; others may put
several lines into one kernel, which rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..errors import PCGraphError
from ..graph import TensorSpec
from .buffers import Scratch
from .emit import Emitted, emit
from .lines import Line
from .stretch import Stretch

NAMES = ("eager", "inductor")
MODES = ("default", "reduce-overhead")


class Backend(Protocol):
    """Turns lines into a function.

    Attributes:
        key: programs of different keys are different programs.
        exact: results equal autograd's to the bit.
    """

    key: tuple[str, ...]
    exact: bool

    def emit(
        self,
        name: str,
        arguments: Sequence[tuple[str, Sequence[str]]],
        lines: Sequence[Line],
        returns: Sequence[tuple[str, ...]],
    ) -> Emitted:
        """As `emit.emit`."""
        ...

    def takes(self, line: Line) -> bool:
        """Whether a line may be part of a stretch of inference."""
        ...

    def multiplies(self, line: Line) -> bool:
        """Whether a line is a product, between which kernels are put."""
        ...

    def stretch(self, stretch: Stretch, scratch: Scratch) -> list[Line] | None:
        """A stretch of inference as calls; None to leave it as it is."""
        ...

    def alone(self, line: Line, spec: TensorSpec) -> Line:
        """A line by itself, whose result looks like that, in the way that is quickest."""
        ...

    @property
    def uncompiled(self) -> dict[str, str]:
        """Parts that stay as emitted, of all programs so far, and why."""
        ...


class Eager:
    """Lines as they stand: the same kernels as autograd's, in the same order."""

    key: tuple[str, ...] = ("eager",)
    exact = True
    emit = staticmethod(emit)

    def takes(self, line: Line) -> bool:
        """None: a step of inference has its own lines, which round as the simulation does."""
        return False

    def multiplies(self, line: Line) -> bool:
        """Of no interest."""
        return False

    def stretch(self, stretch: Stretch, scratch: Scratch) -> list[Line] | None:
        """Never."""
        return None

    def alone(self, line: Line, spec: TensorSpec) -> Line:
        """As it is."""
        return line

    @property
    def uncompiled(self) -> dict[str, str]:
        """Nothing."""
        return {}


EAGER = Eager()


def backend_of(name: str, mode: str = "default") -> Backend:
    """The back end of a name.

    Raises:
        PCGraphError: there is none of that name or mode.
    """
    if name not in NAMES or mode not in MODES or (name == "eager" and mode != "default"):
        what = f"back end {name!r}" if name not in NAMES else f"mode {mode!r} of the back end {name!r}"
        raise PCGraphError(f"there is no {what}", hint=f"back ends: {', '.join(NAMES)}; modes of inductor: {MODES}")
    if name == "eager":
        return EAGER
    from .inductor import Inductor  # torch's compiler takes a second to import

    return Inductor(mode)
