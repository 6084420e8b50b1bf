"""How modules are made: the calls that build them, as text."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from .text import identifier, literal


def construction(module: nn.Module) -> str:
    """``nn.Linear(4, 3, bias=False)``: the call that makes a module of torch like this one, other weights apart.

    Raises:
        ValueError: no such call is known to make a module with the same tensors.
    """
    kind = type(module)
    if getattr(nn, kind.__name__, None) is not kind:
        raise ValueError(f"a module of type {kind.__name__} cannot be written")
    try:
        positional, keywords = _arguments(module)
    except AttributeError as error:
        raise ValueError(f"a module of type {kind.__name__} cannot be written") from error
    with torch.device("meta"):
        made = kind(*positional, **keywords)
    if _tensors(made) != _tensors(module) or made.extra_repr() != module.extra_repr():
        raise ValueError(
            f"{kind.__name__}({module.extra_repr()}) cannot be written: its tensors are not the usual ones"
        )
    parts = [literal(value, {}) for value in positional]
    parts += [f"{identifier(name)}={literal(value, {})}" for name, value in keywords.items()]
    return f"nn.{kind.__name__}({', '.join(parts)})"


def _arguments(module: nn.Module) -> tuple[list[Any], dict[str, Any]]:
    """Arguments without a default, and those that differ from it."""
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    if isinstance(module, nn.RNNBase):
        positional = [module.input_size, module.hidden_size]
        usual = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        keywords = {name: getattr(module, name) for name, default in usual.items() if getattr(module, name) != default}
        if getattr(module, "nonlinearity", "tanh") != "tanh":
            keywords["nonlinearity"] = module.nonlinearity
    else:
        for name, parameter in inspect.signature(type(module).__init__).parameters.items():
            if name in ("self", "device", "dtype") or name.startswith("_"):
                continue
            value = getattr(module, name)
            if name == "bias":
                value = value is not None
            if parameter.default is parameter.empty:
                positional.append(value)
            elif not _same(value, parameter.default):
                keywords[name] = value
    dtype = next((p.dtype for p in module.parameters(recurse=False)), torch.float32)
    if dtype != torch.float32:
        keywords["dtype"] = dtype
    return positional, keywords


def _same(value: Any, default: Any) -> bool:
    """Whether a setting is the default, which modules may have repeated for every dimension."""
    return bool(value == default) or (isinstance(value, tuple) and value == (default,) * len(value))


def _tensors(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}
