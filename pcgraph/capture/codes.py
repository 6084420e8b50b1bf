"""What a function does, as far as its code tells."""

from __future__ import annotations

import dis
import functools
import types

from .sources import is_internal

_INSIDE_FUNCTIONS = frozenset({"__defaults__", "__kwdefaults__", "__closure__"})


@functools.lru_cache(maxsize=4096)
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """Names that a function reads as globals (``co_names`` has attribute names as well, often the same words)."""
    reads = ("LOAD_GLOBAL", "LOAD_NAME")
    return tuple(dict.fromkeys(str(i.argval) for i in dis.get_instructions(code) if i.opname in reads))


@functools.lru_cache(maxsize=4096)
def imported_names(code: types.CodeType) -> tuple[str, ...]:
    """Modules that a function imports by itself."""
    if "import" not in {i.opname.split("_")[0].lower() for i in dis.get_instructions(code)}:
        return ()
    return tuple(str(i.argval) for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME")


def looks_into_functions(code: types.CodeType) -> bool:
    """Whether code, other than torch's, may read of a function what otherwise only shows when it runs."""
    named = {*code.co_names, *(constant for constant in code.co_consts if type(constant) is str)}
    return not is_internal(code.co_filename) and not named.isdisjoint(_INSIDE_FUNCTIONS)
