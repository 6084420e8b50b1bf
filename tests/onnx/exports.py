"""Torch models, written by both of torch's exporters, and what comes back."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional as F

import pcgraph

Make = Callable[[], nn.Module]
# A gradient that is zero but for rounding (of keys' biases) is less than this share of the model's largest. Gradients
# are compared in float64, where 1e-4 of it is 45 units of rounding; in float32 if the file itself casts to float32.
FLAT = {torch.float64: 1e-10, torch.float32: 1e-6}


@dataclass(frozen=True)
class Export:
    """A model to export.

    Attributes:
        make: builds it.
        inputs: example inputs for a batch size.
        batch: dimension of the batch in every input.
    """

    make: Make
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    batch: int = 0


@dataclass(frozen=True)
class Outcome:
    """What an export came back as.

    Attributes:
        forward: largest difference from onnxruntime over all batch sizes, relative to the largest output.
        gradient: largest distance of a parameter's gradient from the original model's, relative to its largest entry,
            of those found again.
        dtype: that it was compared in.
        missing: names of parameters of the original that were not found among the imported ones by their values.
        trained: number of parameter elements of the original, and of the imported module.
        module: the imported module.
    """

    forward: float
    gradient: float
    dtype: torch.dtype
    missing: tuple[str, ...]
    trained: tuple[int, int]
    module: nn.Module


class Recurrent(nn.Module):
    """A recurrent module and a linear layer on its last state."""

    def __init__(self, kind: type[nn.Module], **options: Any) -> None:
        super().__init__()
        self.rnn = kind(5, 6, **options)
        self.head = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(x)[0][-1])


class UNet(nn.Module):
    """Down, up, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.norm, self.up = nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = F.silu(self.first(x))
        deep = F.interpolate(F.max_pool2d(F.relu(self.norm(self.down(skip))), 2), scale_factor=2.0, mode="bilinear")
        return self.last(torch.cat([skip, self.up(deep)], 1))


def perturbed(make: Make, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, no two parameters equal: exporters merge those that are."""
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_((torch.rand_like(tensor) - 0.5) * 0.02)  # variances stay positive
    return model


def exported(model: nn.Module, case: Export, dynamo: bool, opset: int) -> onnx.ModelProto:
    """The model as ONNX, its batch size open."""
    inputs = case.inputs(2)
    names = [f"input_{k}" for k in range(len(inputs))]
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            dims = tuple({case.batch: torch.export.Dim("batch", min=1, max=64)} for _ in inputs)
            program = torch.onnx.export(
                model, inputs, dynamo=True, opset_version=opset, input_names=names, dynamic_shapes=dims, verbose=False
            )
            return program.model_proto
        axes = {name: {case.batch: "batch"} for name in names}
        torch.onnx.export(
            model, inputs, buffer, dynamo=False, opset_version=opset, input_names=names, dynamic_axes=axes
        )
    return onnx.load_model_from_string(buffer.getvalue())


def round_trip(case: Export, dynamo: bool, opset: int) -> Outcome:
    """Export, import, and compare with onnxruntime and with the original's gradients."""
    original = perturbed(case.make)
    proto = exported(original, case, dynamo, opset)
    module = pcgraph.from_onnx(proto)
    forward = max(_forward(proto, module, case.inputs(size)) for size in (2, 3))
    dtype = torch.float32 if _casts(proto) else torch.float64
    gradient, missing = _gradients(original, module, case.inputs(2), dtype)
    elements = tuple(sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (original, module))
    return Outcome(forward, gradient, dtype, missing, elements, module)


def _casts(proto: onnx.ModelProto) -> bool:
    """Whether a file computes in float32 whatever its weights are: by attention, whose schema casts its softmax."""
    return any(node.op_type == "Attention" for node in proto.graph.node)


def _first(output: Any) -> torch.Tensor:
    """The first tensor of a return value."""
    return output if isinstance(output, torch.Tensor) else next(iter(output))


def relative(one: torch.Tensor, two: torch.Tensor) -> float:
    """Largest difference over the largest entry of `two`."""
    return float((one - two).abs().max() / two.abs().max().clamp(min=1e-12))


def _forward(proto: onnx.ModelProto, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
    expected = [torch.from_numpy(np.asarray(out)) for out in session.run(None, feed)]
    with torch.no_grad():
        got = module(*inputs)
    outputs = got if isinstance(got, tuple) else (got,)
    return max(relative(mine, theirs) for mine, theirs in zip(outputs, expected, strict=True))


def _gradients(
    original: nn.Module, module: nn.Module, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype
) -> tuple[float, tuple[str, ...]]:
    """Distance of the gradients, parameters told apart by their values, and those not found."""
    original, module = copy.deepcopy(original).to(dtype), copy.deepcopy(module).to(dtype)
    inputs = tuple(t.to(dtype) if t.is_floating_point() else t for t in inputs)
    for model in (original, module):
        output = _first(model(*inputs))
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
        (output * weights).sum().backward()
    known = list(module.parameters())
    worst, missing = 0.0, []
    scale = max(float(p.grad.abs().max()) for p in original.parameters() if p.grad is not None)
    for name, parameter in original.named_parameters():
        if parameter.grad is None:
            continue
        twin = next((p for p in known if p.grad is not None and _same(p, parameter)), None)
        if twin is None:
            missing.append(name)
            continue
        mine = twin.grad if torch.equal(twin, parameter) else twin.grad.T
        largest = max(float(parameter.grad.abs().max()), FLAT[dtype] * scale)
        worst = max(worst, float((mine - parameter.grad).abs().max()) / largest)
    return worst, tuple(missing)


def _same(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two parameters are equal, or one is the other transposed."""
    return torch.equal(one, two) or (one.dim() == 2 and torch.equal(one.T, two))
