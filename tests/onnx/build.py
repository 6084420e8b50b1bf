"""Small ONNX models from onnx's textual form."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import numpy_helper, parser


def model(text: str, opset: int = 17, domains: str = "", **weights: torch.Tensor) -> onnx.ModelProto:
    """A model from the text of its graph (and functions), with weights as initializers.

    Args:
        text: ``g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }``, without the weights.
        opset: version of ai.onnx.
        domains: further entries of the opset imports, as text.
        weights: initializers by name; two underscores stand for a dot.
    """
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>\n{text}')
    for name, tensor in weights.items():
        dotted = name.replace("__", ".")
        array = np.ascontiguousarray(tensor.detach().numpy()).reshape(tuple(tensor.shape))
        proto.graph.initializer.append(numpy_helper.from_array(array, dotted))
    return proto
