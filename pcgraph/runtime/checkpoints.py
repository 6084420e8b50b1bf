"""A network called inside of ``torch.utils.checkpoint``, which forgets what autograd saves and computes it again.

It does so by hooks on saved tensors. Of a network they see nothing, unless autograd keeps what the prediction saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_hooks: Any = torch._C._autograd


def checkpointed() -> bool:
    """Whether a checkpoint is around (the kind that is not reentrant; the other kind needs nothing from us)."""
    top = _hooks._top_saved_tensors_default_hooks(False)
    return top is not None and top[0].__module__ == "torch.utils.checkpoint"


@contextmanager
def hooks_off() -> Iterator[None]:
    """Without hooks on saved tensors: what is saved inside, on the way to a program, is none of theirs."""
    taken = []
    while (top := _hooks._top_saved_tensors_default_hooks(False)) is not None:
        taken.append(top)
        _hooks._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pack, unpack in reversed(taken):
            _hooks._push_saved_tensors_default_hooks(pack, unpack)
