"""Values and functions as Python text."""

from __future__ import annotations

import builtins
import importlib
import keyword
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx
from torch.nn import functional

_OWN = "pcgraph."
_OF_TORCH = {"torch": torch, "F": functional, "torch.linalg": torch.linalg}
INFIX: dict[Any, str] = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}


def identifier(name: str) -> str:
    """The name itself, if it may stand in code.

    Raises:
        ValueError: it is no identifier of ASCII letters.
    """
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name):
        raise ValueError(f"{name[:80]!r} is no name in Python")
    return name


class Functions:
    """What the functions of a module's graphs are called in its source, and the imports that this takes."""

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        self._texts: dict[Any, str] = {}
        self._modules: dict[str, str] = {}  # of pcgraph -> the name that it is imported by
        self.functional = False
        for function in functions:
            if function not in self._texts:
                self._texts[function] = self._text(function)

    def __getitem__(self, function: Callable[..., Any]) -> str:
        return self._texts[function]

    @property
    def names(self) -> set[str]:
        """Global names that no variable may have."""
        return {
            "F",
            "Path",
            "Tensor",
            "Network",
            "load",
            "nn",
            "self",
            "torch",
            *self._modules.values(),
            *dir(builtins),
        }

    @property
    def imports(self) -> list[str]:
        """Lines that import modules of pcgraph."""
        packages: dict[str, list[str]] = {}
        for module, name in sorted(self._modules.items()):
            package, _, last = module.rpartition(".")
            packages.setdefault(package, []).append(last if name == last else f"{last} as {name}")
        return [f"from {package} import {', '.join(names)}" for package, names in packages.items()]

    def _text(self, function: Any) -> str:
        name, module = getattr(function, "__name__", ""), getattr(function, "__module__", "") or ""
        if function in INFIX or function is operator.getitem:
            return ""
        if getattr(builtins, name, None) is function:
            return identifier(name)
        for prefix, place in _OF_TORCH.items():
            if getattr(place, name, None) is function:
                self.functional |= prefix == "F"
                return f"{prefix}.{identifier(name)}"
        if module.startswith(_OWN) and getattr(importlib.import_module(module), name, None) is function:
            return f"{self._imported(module)}.{identifier(name)}"
        raise ValueError(f"{module}.{name} cannot be imported by its name")

    def _imported(self, module: str) -> str:
        if module not in self._modules:
            last = identifier(module.rpartition(".")[2])
            same = sum(known.rpartition(".")[2] == last for known in self._modules)
            self._modules[module] = f"{last}_{same + 1}" if same else last
        return self._modules[module]


def literal(value: Any, names: dict[fx.Node, str]) -> str:
    """The text of an operand.

    >>> print(literal([1, -2.5, float("inf"), torch.float16, "same", None], {}))
    [1, -2.5, float("inf"), torch.float16, "same", None]

    Raises:
        ValueError: it is of a kind that is not written.
    """
    if isinstance(value, fx.Node):
        return names[value]
    if value is None or value is ... or type(value) in (bool, int):
        return repr(value) if value is not ... else "..."
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if type(value) is str:
        text = ascii(value)
        return text if '"' in text or "'" in text[1:-1] else f'"{text[1:-1]}"'
    if isinstance(value, torch.dtype):
        return f"torch.{identifier(str(value).removeprefix('torch.'))}"
    if isinstance(value, list):  # also fx's immutable ones
        return f"[{', '.join(literal(item, names) for item in value)}]"
    if isinstance(value, tuple):
        inside = ", ".join(literal(item, names) for item in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    raise ValueError(f"an operand of type {type(value).__name__} cannot be written")
