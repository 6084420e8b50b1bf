"""The verdict on a case: import it, compare its outputs with those that onnx expects, its gradients with autograd's."""

from __future__ import annotations

import contextlib
import copy
import enum
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

import pcgraph
from pcgraph.errors import CaptureError, OnnxImportError
from tests.onnx.cases import OnnxCase, with_parameters
from tests.opinfo.cases import Built
from tests.opinfo.observe import first_difference, step

SEED = 3


class Role(enum.StrEnum):
    """What the float inputs of a case are."""

    INPUTS = "inputs"
    PARAMETERS = "parameters"


class Result(enum.StrEnum):
    """What can come out."""

    PASSED = "passed"
    REFUSED = "refused"  # an OnnxImportError
    WRONG = "wrong"  # other outputs than expected
    ERROR = "error"  # any other exception
    INEXACT = "inexact"  # right outputs, but the compiled network differs from autograd on the same module


@dataclass(frozen=True)
class Verdict:
    """Of one case in one role."""

    name: str
    operator: str
    role: Role
    result: Result
    reason: str = ""
    learns: bool = False


def judge(case: OnnxCase, role: Role, gradients: bool = True) -> Verdict:
    """Import the case and compare.

    Args:
        case: what to import.
        role: whether its float inputs are to be arguments or parameters.
        gradients: whether to compile the module and hold it against autograd, too.
    """
    result, reason, learns = Result.ERROR, "", False
    with warnings.catch_warnings(), without_onednn():
        warnings.simplefilter("ignore")
        try:
            given = with_parameters(case) if role is Role.PARAMETERS else case
            module = pcgraph.from_onnx(given.model, trainable="all", quantized="dequantize")
            reason = _outputs(given, module)
            result = Result.WRONG if reason else Result.PASSED
            if gradients and not reason:
                reason, learns = _gradients(given, module)
                result = Result.INEXACT if reason else Result.PASSED
        except OnnxImportError as error:
            result, reason = Result.REFUSED, str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
    return Verdict(case.name, case.operator, role, result, reason.strip(), learns)


@contextlib.contextmanager
def without_onednn() -> Iterator[None]:
    """oneDNN's fused recurrent kernels round in another order than the steps that they stand for."""
    (enabled, *_) = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)


def _outputs(case: OnnxCase, module: nn.Module) -> str:
    """What is wrong with the outputs, by the tolerances of the case; empty if nothing."""
    for inputs, expected in case.sets:
        with torch.no_grad():
            got = module(*(tensor.clone() for tensor in inputs))
        outputs = got if isinstance(got, tuple) else (got,)
        if len(outputs) != len(expected):
            return f"{len(outputs)} outputs, {len(expected)} expected"
        for k, (mine, theirs) in enumerate(zip(outputs, expected, strict=True)):
            if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
                return f"output {k}: {mine.dtype} {list(mine.shape)}, expected {theirs.dtype} {list(theirs.shape)}"
            # onnx's own runner widens the tolerance of bfloat16 to two units in the last place.
            rtol = max(case.rtol, 2**-6) if mine.dtype is torch.bfloat16 else case.rtol
            try:
                torch.testing.assert_close(
                    _comparable(mine), _comparable(theirs), rtol=rtol, atol=case.atol, equal_nan=True
                )
            except AssertionError as error:
                return f"output {k}: {' '.join(str(error).split())}"
    return ""


def _comparable(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _gradients(case: OnnxCase, module: nn.Module) -> tuple[str, bool]:
    """What differs between autograd and the compiled network on the same module, and whether anything learns."""
    twin = copy.deepcopy(module)

    def built(model: nn.Module) -> Built:
        fresh = [t.clone().requires_grad_(t.is_floating_point()) for t in case.sets[0][0]]
        return Built(model, tuple(fresh))

    plain = step(module, built(module), SEED)
    try:
        compiled = step(pcgraph.compile(twin), built(twin), SEED)
    except CaptureError as error:
        return f"compile refuses: {error}", False
    return first_difference(plain, compiled) or "", bool(plain["learns"])
