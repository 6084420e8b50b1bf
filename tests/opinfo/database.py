"""torch's own descriptions of its operations and modules, loaded late: the import takes long and changes settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


@functools.cache
def operations() -> tuple[Any, ...]:
    """Every `OpInfo` of ``op_db`` that supports autograd, in the order of the database."""
    try:
        from torch.testing._internal import common_methods_invocations as found
    finally:
        _thaw()
    # The database wraps random operations in a function that seeds the generator first, which no model does.
    vars(found)["wrapper_set_seed"] = _without_seed
    return tuple(op for op in found.op_db if op.supports_autograd)


def _without_seed(operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return operation(*args, **kwargs)


@functools.cache
def modules() -> tuple[Any, ...]:
    """Every `ModuleInfo` of ``module_db``."""
    try:
        from torch.testing._internal.common_modules import module_db
    finally:
        _thaw()
    return tuple(module_db)


def _thaw() -> None:
    """The import forbids setting ``torch.backends.*.enabled`` for the rest of the process; allow it again."""
    torch.backends.__allow_nonbracketed_mutation_flag = True
