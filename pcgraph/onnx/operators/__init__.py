"""One plain torch function per ONNX operator, in a table."""

from . import (  # noqa: F401 - each fills the table
    elementwise,
    indexing,
    linear,
    loss,
    microsoft,
    normalize,
    pool,
    quantized,
    random,
    recurrent,
    reduce,
    resize,
    shape,
    signal,
)
from .table import Operator, find, rows

__all__ = ["Operator", "find", "rows"]
