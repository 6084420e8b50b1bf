"""Which C functions and standard-library files give the same answer every time.

A list of what is allowed, not of what is forbidden: an unknown function costs a capture at every call, never a
wrong gradient.
"""

from __future__ import annotations

import logging
import os
import sysconfig
import types
from typing import Any

import numpy as np
import torch

_STDLIB = sysconfig.get_path("stdlib") + os.sep
_LOGGING = os.path.dirname(logging.__file__) + os.sep
_NUMPY = os.path.dirname(np.__file__) + os.sep
_TORCH = os.path.dirname(torch.__file__) + os.sep
_SITE = tuple(p + os.sep for p in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_IMPURE_STDLIB = {
    "random", "time", "datetime", "secrets", "uuid", "socket", "subprocess", "tempfile", "glob", "pathlib", "shutil",
    "_pydatetime", "_strptime", "queue", "threading", "urllib", "http", "sched",
}  # fmt: skip
_PURE_MODULES = {
    "math", "cmath", "operator", "_operator", "itertools", "_functools", "functools", "_collections", "collections",
    "_abc", "_weakref", "_bisect", "_heapq", "_struct", "_warnings", "_thread", "_contextvars", "copyreg", "_json",
    "_stat", "_string", "_statistics", "_typing", "sys", "_logging",
}  # fmt: skip
_IMPURE_BUILTINS = {"input", "open", "print", "exec", "eval", "breakpoint", "id", "globals", "locals", "vars"}
_PURE_OWNERS: tuple[type, ...] = (
    list, dict, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, bool, slice, range, type, memoryview,
    type({}.keys()), type({}.values()), type({}.items()), type(iter([])), type(iter({})), torch.Tensor, torch.Size,
    torch.dtype, torch.device, BaseException,
)  # fmt: skip


def impure_file(filename: str) -> str | None:
    """None for the user's own code; "" for library code taken as constant; a name for code that is not repeatable."""
    if filename.startswith("<"):
        return "" if filename.startswith(("<frozen", "<pcgraph", "<__array")) else None  # notebooks are the user's
    if filename.startswith(_NUMPY):
        return "numpy.random" if filename.startswith(_NUMPY + "random" + os.sep) else ""
    if not filename.startswith(_STDLIB) or filename.startswith(_SITE):
        return None
    top = filename[len(_STDLIB) :].split(os.sep)[0].removesuffix(".py")
    return top if top in _IMPURE_STDLIB else ""


def logs(frame: types.FrameType) -> bool:
    """Whether a function is called by `logging`, for a record's sake: what it returns ends in a line of text."""
    caller = frame.f_back
    return caller is not None and caller.f_code.co_filename.startswith(_LOGGING)


def impure_call(function: Any) -> str | None:
    """The name of a C function that is not known to be repeatable, else None."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__qualname__", getattr(function, "__name__", str(function)))
    if owner is None or type(owner).__name__ == "module":
        module = getattr(function, "__module__", None) or getattr(owner, "__name__", "") or ""
        if module == "builtins":
            return f"{name}()" if name in _IMPURE_BUILTINS else None
        if module.split(".")[0] == "numpy" and "random" not in module:
            return None  # what NumPy computes of arguments; arrays that the run reads are compared
        if module.split(".")[0] == "torch" or module in _PURE_MODULES or (not module and owner is None):
            return None
        return f"{module}.{name}()"
    if name.rpartition(".")[2] in _HOOKING and isinstance(owner, torch.autograd.graph.Node):
        if owner.name() == "torch::autograd::AccumulateGrad":  # a parameter's own, which a network uses as well
            return f"{name}()"
        return f"{HOOKS} {name.rpartition('.')[2]}()"
    cls = owner if isinstance(owner, type) else type(owner)
    if issubclass(cls, torch.Generator):
        return f"torch.Generator.{getattr(function, '__name__', '')}()"
    if issubclass(cls, np.ndarray | np.generic | np.ufunc | np.dtype):
        return None
    if issubclass(cls, _PURE_OWNERS) or cls.__module__.split(".")[0] in (
        "torch",
        "collections",
        "builtins",
        "functools",
    ):
        return None
    return f"{cls.__module__}.{name}()"


HOOKS = "a gradient function's"  # how `impure_call` names a hook on a node of autograd's graph
_HOOKING = {"register_hook", "register_prehook", "_register_hook_dict"}
_ENVIRONMENT = {"_Environ.__getitem__", "_Environ.__iter__", "getenv"}
_QUIET = ("linecache.py", "warnings.py", "traceback.py", "inspect.py", "tokenize.py")


def reads_files(filename: str, function: Any) -> bool:
    """Whether a function of the standard library looks at files for its caller."""
    if getattr(function, "__module__", None) not in ("posix", "nt", "_io") or function.__name__ == "fspath":
        return False
    if filename.startswith("<frozen "):
        return not filename.startswith(("<frozen importlib", "<frozen zipimport"))
    standard = filename.startswith(_STDLIB) and not filename.startswith((*_SITE, _LOGGING))
    return standard and os.path.basename(filename) not in _QUIET


_SETTING = {"set_default_dtype", "set_default_device", "use_deterministic_algorithms", "sdpa_kernel"}
_RESEEDING = {"manual_seed", "seed", "set_rng_state", "fork_rng", "manual_seed_all"}


def reads_environment(filename: str, qualname: str) -> bool:
    """Whether a standard-library function reads the environment."""
    in_os = os.path.basename(filename) == "os.py" or filename == "<frozen os>"
    return in_os and qualname in _ENVIRONMENT


def changes_settings(filename: str, name: str) -> bool:
    """Whether a function of torch changes a global setting that decides what operations do."""
    return name in _SETTING and filename.startswith(_TORCH)


def reseeds(filename: str, name: str) -> bool:
    """Whether a function of torch sets the state of a random number generator."""
    return name in _RESEEDING and filename.startswith(_TORCH) and os.path.basename(filename) in ("random.py",)
