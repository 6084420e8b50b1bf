"""Memory that is used up: custom autograd functions may write to an operand and return other tensors.

Autograd knows of such a write at most that there was one. What the old tensor objects would be used for afterwards had
a history that does not tell where the values come from. So the function is recorded as one that runs on a copy, and
the old objects must not be used again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import CaptureError
from .mutation import Geometry
from .observer import storage_key
from .values import Values


class Consumed:
    """Which tensor objects are used up.

    Args:
        values: which value each tensor object holds.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._gone: dict[int, str] = {}
        self._running = False
        self._versions: dict[int, int] = {}
        self._before: dict[int, torch.UntypedStorage] = {}

    def begin(self, operands: list[torch.Tensor]) -> None:
        """A custom function is about to run."""
        self._running, self._before = True, {}
        self._versions = {id(tensor): tensor._version for tensor in operands if not tensor.is_inference()}

    def end(self) -> None:
        """It has run."""
        self._running = False

    def before_write(self, key: int) -> None:
        """Keep what lies in a memory that a custom function is about to write to."""
        if self._running and key not in self._before and (known := self._values.seeing(key)):
            self._before[key] = known[0].untyped_storage().clone()

    def check(self, tensor: torch.Tensor, where: Callable[[], str]) -> None:
        """Raise if a tensor is used that is used up.

        Raises:
            CaptureError: names the function that has done it.
        """
        name = self._gone.get(id(tensor))
        if name is not None:
            raise CaptureError(
                f"a tensor is used again after the custom autograd function {name} has written to its memory",
                where=where(),
                hint=f"go on with what {name} returns, or hand it a clone()",
            )

    def take(
        self, written: torch.Tensor, operands: list[torch.Tensor], results: list[torch.Tensor], name: str, where: str
    ) -> torch.Tensor | None:
        """Use up the memory behind an operand.

        Returns:
            The result that lies in this memory, if one does.

        Raises:
            CaptureError: what was computed before could learn from the new values, or too much is written.
        """
        key = storage_key(written)
        assert key is not None
        aliases = [tensor for tensor in results if storage_key(tensor) == key]
        whole = self._values.memory_of(written).geometry
        if (
            self._before.keys() - {key}
            or sum(operand is written for operand in operands) != 1
            or len(aliases) > 1
            or any(Geometry.of(tensor) != whole for tensor in ([*aliases, written] if aliases else []))
        ):
            raise CaptureError(
                f"{name} writes in place and returns new tensors as well",
                where=where,
                hint="let it write to one operand alone, as a whole, or to a clone()",
            )
        if written._version == self._versions.get(id(written)):  # or autograd tells, when it learns
            self._refuse_readers(key, name, where)
        self._gone |= {id(tensor): name for tensor in self._values.seeing(key)}
        return aliases[0] if aliases else None

    def _refuse_readers(self, key: int, name: str, where: str) -> None:
        """Raise if an operation has used values that a write past autograd has changed: it may have saved them."""
        known = self._values.seeing(key)
        nodes = {self._values.bound(tensor).node for tensor in known}
        for tensor in known:
            was = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            was.set_(self._before[key], tensor.storage_offset(), tensor.size(), tensor.stride())
            if _same_bytes(was, tensor.detach()):
                continue
            if any(user not in nodes for user in self._values.users(tensor)):
                raise CaptureError(
                    f"{name} changes values behind autograd's back that another operation has used",
                    where=where,
                    hint="hand it a clone(), or write with the tensor itself (not its .data)",
                )


def _same_bytes(one: torch.Tensor, two: torch.Tensor) -> bool:
    if one.numel() == 0:
        return True
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (one, two)))
