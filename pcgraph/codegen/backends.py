"""Back ends: what becomes of emitted lines.

A program is a list of lines, one ATen call each. The eager back end writes them down as they stand; others may put
several lines into one kernel, which rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..errors import PCGraphError
from .emit import Emitted, emit
from .lines import Line

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

    @property
    def uncompiled(self) -> dict[str, str]:
        """Parts that stay as emitted, of all programs so far, and why."""
        ...


class Eager:
    """Lines as they stand: the same kernels as autograd's, in the same order."""

    key: tuple[str, ...] = ("eager",)
    exact = True
    emit = staticmethod(emit)

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
