"""``package.module:name``, or an ONNX file, to an `nn.Module`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import PCGraphError

if TYPE_CHECKING:
    from torch import nn

_EXAMPLE = "write package.module:name, for example torchvision.models:resnet18, or the path of an .onnx file"


def load_model(target: str, say: Callable[[str], None] | None = None) -> nn.Module:
    """Import a model, or call the zero-argument class or function that makes one.

    Args:
        target: ``package.module:name``; the name may be dotted. The current folder is importable. Or a path that
            ends in ``.onnx``.
        say: is told how far the import of a file is.

    Raises:
        PCGraphError: the text has no colon, the module or the name does not exist, importing or calling it
            failed, it needs arguments, or what comes out is not an `nn.Module`; the file cannot be imported.
    """
    from torch import nn

    if target.endswith(".onnx"):
        from ..onnx import from_onnx

        def progress(stage: str, done: int, total: int) -> None:
            if say is not None:
                say(f"loading {target}: {stage}" + (f", {done:,} of {total:,}" if total else ""))

        return from_onnx(target, progress=progress)
    module_name, colon, path = target.partition(":")
    if not (colon and module_name and path):
        raise PCGraphError(f"MODEL {target!r} has no module and name with a colon between", hint=_EXAMPLE)
    found: Any = _import(module_name)
    for name in path.split("."):
        if not hasattr(found, name):
            owner = module_name if isinstance(found, ModuleType) else f"{module_name}:{path}"
            raise PCGraphError(f"{owner} has no attribute {name!r}", hint=_suggest(name, dir(found)))
        found = getattr(found, name)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise PCGraphError(
            f"{target} is of type {type(found).__name__}, neither an nn.Module nor something that makes one",
            hint="name an nn.Module, or a class or function without arguments that returns one",
        )
    model = _call(target, found)
    if not isinstance(model, nn.Module):
        raise PCGraphError(
            f"{target}() returned something of type {type(model).__name__}, not an nn.Module",
            hint="name a class or function that returns the model",
        )
    return model


def _import(name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A missing import *inside* the user's module is another error than a mistyped module.
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise PCGraphError(
                f"there is no module {error.name!r}", hint="check its spelling, or run from the folder that holds it"
            ) from error
        raise PCGraphError(f"importing {name} failed: {type(error).__name__}: {error}") from error
    except Exception as error:
        raise PCGraphError(
            f"importing {name} failed: {type(error).__name__}: {error}", hint="run again with --debug to see where"
        ) from error


def _call(target: str, make: Callable[[], Any]) -> Any:
    needed = _required(make)
    if needed:
        raise PCGraphError(
            f"{target} needs arguments: {', '.join(needed)}",
            hint="name a function without arguments that makes the model",
        )
    try:
        return make()
    except Exception as error:
        raise PCGraphError(
            f"calling {target}() failed: {type(error).__name__}: {error}", hint="run again with --debug to see where"
        ) from error


def _required(make: Callable[..., Any]) -> list[str]:
    """Names of the arguments that have no default."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # some builtins do not tell
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in optional]


def _suggest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, [k for k in known if not k.startswith("_")])
    return f"did you mean {' or '.join(near)}?" if near else "check its spelling"
