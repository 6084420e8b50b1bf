"""What a function does, as far as its code tells."""

from __future__ import annotations

import dis
import functools
import importlib.util
import inspect
import itertools
import sys
import types
from typing import Any

from .sources import is_internal

_TAKING = frozenset({"modules", "__import__"})
_SIGNATURE = getattr(getattr(inspect, "_signature_from_function", None), "__code__", None)
_NAMESPACES = frozenset({"f_globals", "f_locals", "f_builtins", "__globals__", "__builtins__"})
_INSIDE_FUNCTIONS = frozenset({"__defaults__", "__kwdefaults__", "__closure__"})


@functools.lru_cache(maxsize=4096)
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """Names that a function reads as globals (``co_names`` has attribute names as well, often the same words)."""
    reads = ("LOAD_GLOBAL", "LOAD_NAME")
    return tuple(dict.fromkeys(str(i.argval) for i in dis.get_instructions(code) if i.opname in reads))


@functools.lru_cache(maxsize=4096)
def imported_names(code: types.CodeType) -> tuple[str, ...]:
    """Modules that a function imports by itself, and texts that may name one that it takes out of ``sys.modules``."""
    imported = [str(i.argval) for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"]
    if not _TAKING.isdisjoint(code.co_names):
        imported += [constant for constant in code.co_consts if type(constant) is str]
    return tuple(imported)


def modules_by_name(code: types.CodeType, scope: dict[str, Any]) -> list[str] | None:
    """Loaded modules that a function gets other than as globals; None if it gets some whose names are not known."""
    found = [name for name in imported_names(code) if name in sys.modules]
    if not {"sys", "modules"} <= {*code.co_names}:
        return found
    own = [scope["__name__"]] if "__name__" in code.co_names and scope.get("__name__") in sys.modules else []
    return [*found, *own] or None


@functools.lru_cache(maxsize=4096)
def only_asks_for_modules(code: types.CodeType) -> bool:
    """Whether a function does nothing with ``sys.modules`` but ask whether a name is in it.

    >>> only_asks_for_modules((lambda name: name in sys.modules).__code__)
    True
    >>> only_asks_for_modules((lambda name: name in sys.modules and sys.modules[name]).__code__)
    False
    """
    steps = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG")]
    uses = [after.opname for step, after in itertools.pairwise(steps) if step.argval == "modules"]
    return bool(uses) and set(uses) == {"CONTAINS_OP"}


def called_to_import(frame: types.FrameType) -> str | None:
    """The name of the module that a frame is about to return, if it is one of `importlib.import_module`."""
    if frame.f_code is not importlib.import_module.__code__:
        return None
    try:
        return importlib.util.resolve_name(frame.f_locals["name"], frame.f_locals["package"])
    except Exception:  # no name of a module: the call itself raises, which is the model's affair
        return None


def reads_namespaces(code: types.CodeType) -> bool:
    """Whether code, other than torch's, may read global names that are not among its own."""
    return not is_internal(code.co_filename) and not _named(code).isdisjoint(_NAMESPACES)


def looks_into_functions(code: types.CodeType) -> bool:
    """Whether code, other than torch's, may read of a function what otherwise only shows when it runs."""
    if code is _SIGNATURE:  # `looked_into` tells which
        return False
    return not is_internal(code.co_filename) and not _named(code).isdisjoint(_INSIDE_FUNCTIONS)


def looked_into(frame: types.FrameType) -> Any:
    """The function whose defaults a frame is about to read, if it is one of `inspect.signature`'s."""
    return frame.f_locals.get("func") if frame.f_code is _SIGNATURE else None


def _named(code: types.CodeType) -> set[str]:
    return {*code.co_names, *(constant for constant in code.co_consts if type(constant) is str)}
