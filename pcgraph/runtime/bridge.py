"""The bridge to autograd: one Function whose backward is the learning program.

To the engine the whole network is a single node between its leaves (inputs, parameters) and its outputs, so
optimizers, hooks, gradient scalers and gradient accumulation see ordinary gradients. Inside, no engine runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..errors import LearnError
from ..graph import TensorSpec

if TYPE_CHECKING:
    from .compiled import Compiled

_keeps_graph: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph

_FREED = (
    "Trying to run the learning phase a second time: the values that the prediction saved were freed after the first "
    "time. Specify retain_graph=True if you need to learn twice from one prediction."
)


class Wave(torch.autograd.Function):
    """Prediction on the way in, Z-IL inference on the way back."""

    @staticmethod
    def forward(ctx: Any, compiled: Compiled, values: list[Any], plain: list[Any], *leaves: torch.Tensor) -> Any:
        """Run the prediction; `plain` receives the outputs that carry no gradient."""
        given = list(values) if compiled.first else ()
        outputs, saved = compiled.program.predict(values)
        ctx.compiled, ctx.saved, ctx.leaves = compiled, saved, leaves
        ctx.versions = compiled.versions(saved, outputs, given)
        ctx.set_materialize_grads(False)
        # Detached, since a view of an output that learns would come to need a gradient along with it.
        plain.extend(outputs[k].detach() for k in compiled.plain_outputs)
        return tuple(compiled.presentable(outputs[k], saved) for k in compiled.learning_outputs)

    @staticmethod
    def backward(ctx: Any, *errors: torch.Tensor | None) -> Any:
        """Run the learning program on the errors of the outputs; return the leaves' gradients."""
        compiled, saved, leaves = ctx.compiled, ctx.saved, ctx.leaves
        if saved is None:
            raise RuntimeError(_FREED)
        if compiled.stale is not None:
            raise RuntimeError(compiled.stale)
        compiled.check_versions(saved, ctx.versions)
        if _keeps_graph():
            saved = list(saved)
        else:
            ctx.saved = ctx.leaves = None
        differentiate = torch.is_grad_enabled()
        with torch.no_grad():
            gradients = compiled.learn(saved, errors)
        if differentiate:
            gradients = refuse_double_backward(leaves, errors, gradients)
        return (None, None, None, *gradients)


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
