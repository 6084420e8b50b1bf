"""Attributes of ONNX nodes as Python values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import to_torch

if TYPE_CHECKING:
    import onnx_ir as ir


def python_value(attribute: ir.Attr) -> Any:
    """Numbers, strings and lists of them as they are, tensors as torch tensors, graphs as `onnx_ir.Graph`.

    Raises:
        ValueError: the attribute is of a type that no supported operator has.
    """
    import onnx_ir as ir

    kind = ir.AttributeType
    if attribute.is_ref():
        raise ValueError(f"attribute {attribute.name!r} refers to a function's, outside of a function")
    if attribute.type is kind.FLOAT:
        return shortest(attribute.value)
    if attribute.type is kind.FLOATS:
        return [shortest(value) for value in attribute.value]
    if attribute.type in (kind.INT, kind.STRING, kind.GRAPH):
        return attribute.value
    if attribute.type in (kind.INTS, kind.STRINGS):
        return list(attribute.value)
    if attribute.type is kind.TENSOR:
        return to_torch(attribute.value)
    raise ValueError(f"attribute {attribute.name!r} of type {attribute.type.name} is not supported")


def shortest(value: float) -> float:
    """The shortest decimal that is this number in single precision: what the file's author wrote.

    >>> shortest(9.999999747378752e-06)
    1e-05
    """
    return float(str(np.float32(value)))
