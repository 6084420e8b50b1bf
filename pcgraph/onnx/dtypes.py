"""ONNX element types and tensors as torch's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    import onnx_ir as ir

# By the numbers of TensorProto.DataType, which attributes such as Cast's `to` hold.
TORCH: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    4: torch.uint16,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    12: torch.uint32,
    13: torch.uint64,
    14: torch.complex64,
    15: torch.complex128,
    16: torch.bfloat16,
}
_BFLOAT16 = 16


def torch_dtype(number: int) -> torch.dtype:
    """The torch type of an ONNX element type.

    Raises:
        ValueError: torch computes with no such type (strings, floats of 8 bits, integers of 4).
    """
    if number not in TORCH:
        from onnx import TensorProto

        names = {value: name for name, value in TensorProto.DataType.items()}
        raise ValueError(f"elements of type {names.get(number, number)} are not supported")
    return TORCH[number]


def to_torch(tensor: ir.TensorProtocol) -> torch.Tensor:
    """A tensor of the file, sharing its memory where it can: read it, never write to it.

    Raises:
        ValueError: the type is not supported, or the data do not fit the shape.
    """
    dtype = torch_dtype(int(tensor.dtype))
    array = np.ascontiguousarray(tensor.numpy())
    shape = tuple(int(str(size)) for size in tensor.shape)  # a tensor's sizes are never symbols
    if int(tensor.dtype) == _BFLOAT16:
        array = array.view(np.int16)
    if array.size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"tensor {tensor.name!r} holds {array.size} elements for the shape {list(shape)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        result = torch.from_numpy(array.reshape(-1) if array.size else np.zeros(0, array.dtype))
    if int(tensor.dtype) == _BFLOAT16:
        result = result.view(torch.bfloat16)
    return result.to(dtype).reshape(shape)
