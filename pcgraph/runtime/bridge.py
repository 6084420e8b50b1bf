"""The bridge to autograd: one Function per segment, whose backward is that segment's learning program.

To the engine the network is a single node between its leaves (inputs, parameters) and its outputs, so optimizers,
hooks, gradient scalers and gradient accumulation see ordinary gradients. Inside, no engine runs. Only where the
caller holds a value that the network goes on with (a seam) there is one node more, so that the engine sees it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..errors import LearnError
from ..graph import TensorSpec

if TYPE_CHECKING:
    from .run import Run

_keeps_graph: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph


class Wave(torch.autograd.Function):
    """Prediction on the way in, Z-IL inference on the way back."""

    @staticmethod
    def forward(ctx: Any, run: Run, segment: int, *sources: torch.Tensor) -> Any:
        """Present the outputs of a segment; `sources` receive its gradients, after the token of the segment before."""
        ctx.run, ctx.segment = run, segment
        ctx.set_materialize_grads(False)
        outputs = run.present(segment)
        if run.checkpointed:
            ctx.save_for_backward(*run.hand_over(segment))
        return outputs

    @staticmethod
    def backward(ctx: Any, *errors: torch.Tensor | None) -> Any:
        """Run the segment's learning program on the errors of its outputs; return the sources' gradients."""
        if not torch.is_grad_enabled():
            return (None, None, *_learned(ctx, errors))
        with torch.no_grad():
            gradients = _learned(ctx, errors)
        return (None, None, *refuse_double_backward(ctx.run.leaves, errors, gradients))


def _learned(ctx: Any, errors: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor | None, ...]:
    # A checkpoint predicts again here. Learning frees each value after its last use: nobody else may hold it.
    kept = iter(ctx.saved_tensors if ctx.run.checkpointed else ())
    gradients: tuple[torch.Tensor | None, ...] = ctx.run.learn(ctx.segment, errors, kept, keep=_keeps_graph())
    return gradients


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, n: int, *tensors: torch.Tensor | None) -> Any:
        return tuple(None if g is None else g.view_as(g) for g in tensors[n:])

    @staticmethod
    def backward(ctx: Any, *errors: Any) -> Any:
        raise LearnError(
            "a gradient of a predictive coding network cannot be differentiated again (create_graph=True)",
            hint="take higher derivatives of the plain model: `pcn.module`",
        )


def refuse_double_backward(
    leaves: tuple[torch.Tensor, ...],
    errors: tuple[torch.Tensor | None, ...],
    gradients: tuple[torch.Tensor | None, ...],
) -> tuple[torch.Tensor | None, ...]:
    """The same gradients, as a function of what they depend on that raises `LearnError` when it is differentiated."""
    sources = [t for t in (*leaves, *errors) if t is not None]
    with torch.enable_grad():
        result: tuple[torch.Tensor | None, ...] = _Refuse.apply(len(sources), *sources, *gradients)
    return result


def layout(error: torch.Tensor) -> TensorSpec:
    """What a learning program depends on in an arriving error."""
    spec = TensorSpec.of(error)
    return TensorSpec(spec.shape, spec.stride, spec.dtype, spec.device) if spec.requires_grad else spec
