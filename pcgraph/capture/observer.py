"""Watches the ATen operations under one torch-level call: what was written, drawn, read back, or sized by data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes, _get_current_dispatch_mode_stack

from ..errors import CaptureError
from .sources import user_source

# These kernels update running statistics without saying so in their schema, and without moving version counters.
_HIDDEN_WRITES = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}


# Nor do these say that the shapes of their results depend on data: how many entries a sparse tensor has, say.
_SIZED_BY_DATA = frozenset(
    f"aten::{name}"
    for name in (
        "values", "_values", "indices", "_indices", "crow_indices", "ccol_indices", "row_indices", "col_indices",
        "_pack_padded_sequence",
    )
)  # fmt: skip


def _by_position(func: Any, args: Any) -> bool:
    """Whether a call is an indexing by integers, whose result has the shape of the indices."""
    if func.overloadpacket is not torch.ops.aten.index:
        return False
    return all(index is None or index.dtype not in (torch.bool, torch.uint8) for index in args[1])


def storage_key(tensor: torch.Tensor) -> int | None:
    """Identity of the memory behind a tensor; None for layouts that have none."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


class Observer(TorchDispatchMode):
    """Collects facts about every ATen call between `begin` and the next `begin`.

    Args:
        before_write: called with the key of a storage just before it is written.
        before_reshaping: called with a tensor just before its shape is changed in place.
        on_call: runs and records an ATen call that belongs to no recorded call.

    Attributes:
        writes: storages that were written, with a version bump.
        hidden_writes: storages written without one (batch-norm statistics).
        random: a random number generator was used.
        looked: a tensor's value became a Python value.
        dynamic: the shape of a result depended on data.
        inside: a recorded call is running.
        refused: why an ATen call could not be recorded.
        view_changed: a tensor's shape was changed in place (``squeeze_``).
    """

    def __init__(
        self,
        before_write: Callable[[int], None],
        before_reshaping: Callable[[torch.Tensor], None],
        on_call: Callable[[Any, Any, Any], Any],
    ) -> None:
        super().__init__()
        self.supports_higher_order_operators = True  # to refuse them by name
        self._before_write, self._before_reshaping, self._on_call = before_write, before_reshaping, on_call
        self.inside = False
        self.refused: CaptureError | None = None
        self.begin()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not by a wrapper around every call, which costs as much as the call: see below."""
        return False

    def aside(self) -> AbstractContextManager[Any]:
        """What runs inside is no business of the model's, and is not seen."""
        return _disable_current_modes()

    def begin(self) -> None:
        """Forget everything seen so far."""
        self.writes: set[int] = set()
        self.hidden_writes: set[int] = set()
        self.random = self.looked = self.dynamic = self.view_changed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            # torch.cond is no Python if: parameters of the branch not taken get gradients of zeros instead of None.
            raise CaptureError(
                f"the model calls the higher-order operator {func.name()}",
                where=str(user_source()),
                hint="write a Python if, for or while: what it does is captured, and captured again when it changes",
            )
        if not self.inside:
            try:
                return self._on_call(func, args, kwargs)
            except CaptureError as error:
                self.refused = error
                raise
        self.note(func, args, kwargs)
        return func(*args, **kwargs)

    def note(self, func: Any, args: Any, kwargs: Any) -> None:
        """Collect the facts about one ATen call, just before it runs."""
        tags = func.tags
        if tags:
            if torch.Tag.nondeterministic_seeded in tags:
                self.random = True
            if torch.Tag.data_dependent_output in tags:
                self.looked = True
            if torch.Tag.dynamic_output_shape in tags and not _by_position(func, args):
                self.dynamic = True
            if torch.Tag.inplace_view in tags:
                self._before_reshaping(args[0])
                self.view_changed = True
        schema = func._schema
        if schema.name in _SIZED_BY_DATA:
            self.dynamic = True
        if schema.is_mutable:
            self._note_writes(schema, args, kwargs)
        elif schema.name.removeprefix("aten::") in _HIDDEN_WRITES and args[5]:
            for statistic in args[3:5]:
                if statistic is not None:
                    key = storage_key(statistic)
                    if key is not None:
                        self._before_write(key)
                        self.hidden_writes.add(key)

    def _note_writes(self, schema: Any, args: Any, kwargs: Any) -> None:
        for position, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, torch.Tensor):
                    key = storage_key(tensor)
                    if key is not None:
                        self._before_write(key)
                        self.writes.add(key)


# ``torch.compile`` runs the observer, and all that it calls, as it is.
_frames: Any = torch._C._dynamo.eval_frame
_skip = _frames._FrameAction.SKIP
_frames.set_code_exec_strategy(Observer.__torch_dispatch__.__code__, _frames._FrameExecStrategy(_skip, _skip))


def refuse_dispatch_modes(observer: Observer, where: str) -> None:
    """Refuse a dispatch mode that the model enters: what it does to each call is out of sight.

    Raises:
        CaptureError: there is one, and it is none of torch's own for checkpoints.
    """
    modes = _get_current_dispatch_mode_stack()
    for mode in modes[modes.index(observer) + 1 :] if observer in modes else ():
        if type(mode).__module__ != "torch.utils.checkpoint":
            raise CaptureError(
                f"the model enters a dispatch mode while it runs ({type(mode).__name__})",
                where=where,
                hint="leave it out: what it does to each call cannot be compiled",
            )
