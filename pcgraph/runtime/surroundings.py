"""What may be active where a network is called, and would see the network's programs instead of the model."""

from __future__ import annotations

from typing import Any

import torch
from torch._C import _functorch
from torch.autograd import forward_ad
from torch.fx._symbolic_trace import is_fx_symbolic_tracing

from ..errors import CaptureError

_frames: Any = torch._C._dynamo.eval_frame


def hide_from_compiler(function: Any) -> None:
    """Have ``torch.compile`` run a function, and all that it calls, as it is."""
    function._torchdynamo_disable = True
    function._torchdynamo_disable_msg = "a predictive coding network runs programs of its own"
    skip = _frames._FrameAction.SKIP
    _frames.set_code_exec_strategy(function.__code__, _frames._FrameExecStrategy(skip, skip))


def refuse_surroundings() -> None:
    """Raise where somebody else differentiates, maps or traces what a network does.

    Raises:
        CaptureError: inside of a transform of torch.func, of forward-mode differentiation, or of a tracer.
    """
    if _functorch.peek_interpreter_stack() is not None:
        what, verb = "a transform of torch.func (vmap, grad, jvp, ...)", "transform"
    elif forward_ad._current_level >= 0:
        what, verb = "forward-mode differentiation", "differentiate"
    elif torch._C._get_tracing_state() is not None:
        what, verb = "torch.jit.trace", "trace"
    elif is_fx_symbolic_tracing():
        what, verb = "torch.fx's symbolic tracing", "trace"
    elif torch.compiler.is_exporting():
        what, verb = "torch.export", "export"
    else:
        return
    raise CaptureError(
        f"a predictive coding network was called inside of {what}, which it cannot take part in",
        hint=f"{verb} the plain model, `pcn.module`: parameters and values are the same",
    )
