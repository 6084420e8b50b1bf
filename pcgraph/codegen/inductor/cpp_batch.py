"""One run of the C++ compiler for all kernels of a region.

Inductor runs it once per kernel, and nearly all of that time goes to the same headers. Here the sources of a region's
kernels are collected, written into one file, and a kernel that another region had already is not compiled again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import CppPythonBindingsCodeCache, LambdaFuture

_ENTRY = re.compile(r"\bkernel\b(?=\s*\()")
_METHODS = "static PyMethodDef py_methods[] = {"
_BINDING = """
static PyObject* {name}_py(PyObject* self, PyObject* args) {{
    try {{
        if(!PyTuple_CheckExact(args) || PyTuple_GET_SIZE(args) != {count}) [[unlikely]]
            throw std::runtime_error("requires a tuple of {count} args");
        {name}({parsed});
        Py_RETURN_NONE;
    }} catch(std::exception const& e) {{
        PyErr_SetString(PyExc_RuntimeError, e.what());
        return nullptr;
    }}
}}
"""
_built: dict[Any, Callable[..., Any]] = {}
_MOST = 8192


class _Batch:
    """Kernels of one region; built when the first of them is asked for, which is after the last was added."""

    def __init__(self) -> None:
        self._sources: dict[Any, str] = {}  # by types of arguments and source, names of functions

    def add(self, types: Sequence[str], source: str) -> Any:
        key = (tuple(types), source)
        if key not in _built:
            self._sources.setdefault(key, f"kernel{len(self._sources)}")
        return LambdaFuture(lambda: self._kernel(key))

    def _kernel(self, key: Any) -> Callable[..., Any]:
        if key not in _built:
            sources, self._sources = self._sources, {}
            while len(_built) > _MOST:
                _built.pop(next(iter(_built)))
            module = CppPythonBindingsCodeCache.load_async(_translation_unit(sources), "cpu")()
            _built.update({each: getattr(module, name) for each, name in sources.items()})
        return _built[key]


def _translation_unit(sources: dict[Any, str]) -> str:
    """All sources in one file, with Python bindings of all of them."""
    cache = CppPythonBindingsCodeCache
    bodies, bindings, methods = [], [], []
    for (types, source), name in sources.items():
        bodies.append(_ENTRY.sub(name, source, count=1))
        parsed = ", ".join(f"parse_arg<{t.replace('const ', '')}>(args, {n})" for n, t in enumerate(types))
        bindings.append(_BINDING.format(name=name, count=len(types), parsed=parsed))
        methods.append(f'{{"{name}", {name}_py, METH_VARARGS, ""}},')
    suffix = cache.suffix_template.format(
        arg_len=0, call_entry_func="Py_RETURN_NONE;", entry_func="kernel", extra_parse_arg=""
    )
    if _METHODS not in suffix:
        raise RuntimeError("torch's Python bindings of C++ kernels have another form")
    return "\n".join(bodies) + suffix.replace(_METHODS, "\n".join([*bindings, _METHODS, *methods]))


@contextmanager
def one_run() -> Iterator[None]:
    """Inside, on this thread, kernels are collected and compiled in one run."""
    batch, thread = _Batch(), threading.get_ident()
    pybinding, wait = AsyncCompile.cpp_pybinding, AsyncCompile.wait

    def collected(self: Any, types: list[str], source: str) -> Any:
        return batch.add(types, source) if threading.get_ident() == thread else pybinding(self, types, source)

    def waited(self: Any, scope: dict[str, Any]) -> None:
        if threading.get_ident() == thread:
            scope.update({name: value.result() for name, value in scope.items() if type(value) is LambdaFuture})
        wait(self, scope)

    patched: Any = AsyncCompile
    patched.cpp_pybinding, patched.wait = collected, waited
    try:
        yield
    finally:
        patched.cpp_pybinding, patched.wait = pybinding, wait
