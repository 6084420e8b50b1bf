"""ONNX names as names of modules, parameters and variables in Python: letters, digits and underscores only."""

from __future__ import annotations

import keyword
import re

from torch import fx, nn

_LONGEST = 80  # characters of one part of a name
_TAKEN = frozenset(dir(nn.Module())) | frozenset(dir(fx.GraphModule)) | {"origins", "provenance"}
# What generated code itself speaks of: a local variable of that name would stand before it.
_SPOKEN = frozenset(
    {"NoneType", "device", "fx_pytree", "getattr", "inf", "math", "nan", "operator", "pytree", "self", "slice", "torch"}
)
_TENSOR = ("weight", "bias", "gamma", "beta", "kernel", "scale", "running_mean", "running_var")


def identifier(name: str) -> str:
    """One part of a name.

    >>> identifier("onnx::MatMul_12"), identifier("class"), identifier('x"]; import os #')
    ('onnx__MatMul_12', 'class_', 'x____import_os')
    """
    text = re.sub(r"[^0-9A-Za-z_]", "_", name)[:_LONGEST].rstrip("_") or "unnamed"
    return f"{text}_" if keyword.iskeyword(text) or text in _TAKEN or text.startswith("__") else text


def variable(name: str) -> str:
    """A name for a local variable of the generated code.

    >>> variable("input.1"), variable("1"), variable("torch")
    ('input_1', 'v_1', 'v_torch')
    """
    text = identifier(name)
    unfit = text[0].isdigit() or text.startswith(("_", "pcgraph_")) or text in _SPOKEN
    return f"v_{text}" if unfit else text


def dotted(name: str) -> str:
    """A path of attributes, cut at dots and slashes.

    >>> dotted("layer1.0.conv1.weight"), dotted("model/dense/kernel:0")
    ('layer1.0.conv1.weight', 'model.dense.kernel_0')
    """
    return ".".join(identifier(part) for part in re.split(r"[./]", name) if part) or "unnamed"


def module_path(node: str, operator: str, *tensors: str) -> str:
    """A module's path: its weight's, without the last part, or its node's.

    >>> module_path("", "Conv", "layer1.0.conv1.weight")
    'layer1.0.conv1'
    >>> module_path("/layer1/layer1.0/conv1/Conv", "Conv", "onnx::Conv_193")
    'layer1.0.conv1'
    >>> module_path("", "Conv", "193")
    'conv'
    """
    for tensor in tensors:
        parts = dotted(tensor).split(".")
        if len(parts) > 1 and parts[-1].startswith(_TENSOR):
            return ".".join(parts[:-1])
    path: list[str] = []
    for scope in filter(None, node.split("/")):
        parts = [identifier(part) for part in scope.split(".") if part]
        same = next((k for k in range(len(parts), 0, -1) if path[-k:] == parts[:k]), 0)
        path += parts[same:]
    if len(path) > 1 and re.fullmatch(rf"{operator}(_\d+)?", path[-1]):
        path.pop()
    return ".".join(path) or identifier(operator.lower())


class Names:
    """Paths already given away below one module."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._inner: set[str] = set()

    def take(self, path: str) -> str:
        """This path, or it with numbers behind its parts, such that it is neither taken nor below or above one that is.

        >>> names = Names()
        >>> names.take("block.attention"), names.take("block.attention"), names.take("block.attention.bias")
        ('block.attention', 'block.attention_1', 'block.attention_2.bias')
        """
        taken = ""
        parts = path.split(".")
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            number, candidate = 0, f"{taken}{part}"
            while candidate in self._leaves or (last and candidate in self._inner):
                number += 1
                candidate = f"{taken}{part}_{number}"
            (self._leaves if last else self._inner).add(candidate)
            taken = f"{candidate}."
        return taken[:-1]
