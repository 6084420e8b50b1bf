"""The one place that calls Inductor: a function of ATen calls on strided tensors becomes kernels.

Neither Dynamo nor AOTAutograd has a part in it: the lines are a graph already, with nothing to differentiate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx
from torch._guards import TracingContext, tracing
from torch._inductor import compile_fx, config
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.utils import BoxedBool
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from .cpp_batch import one_run
from .decompositions import decompositions

Kernel = Callable[[list[torch.Tensor]], Sequence[Any]]


def compiled(
    function: Kernel,
    values: Sequence[torch.Tensor],
    *,
    checked: bool,
    graphs: bool,
    places: Sequence[int | None] | None = None,
) -> Kernel:
    """Compile a function of a list of tensors for tensors laid out like these.

    Args:
        function: calls ATen operators only; empties the list.
        values: the tensors; nothing is computed with them.
        checked: the compiled function compares its arguments' sizes and strides with these at every call.
        graphs: record CUDA graphs where the values are on CUDA.
        places: per result, the argument whose memory it is written into; those are not returned.

    Raises:
        Exception: whatever Inductor or the C++ compiler raises.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    settings = {"fallback_random": True, "size_asserts": checked, "triton.cudagraphs": graphs}
    with _quiet(), config.patch(settings), one_run():
        fake = [mode.from_tensor(value.detach(), static_shapes=True) for value in values]
        with mode:
            table = {**select_decomp_table(), **decompositions()}
            traced = make_fx(lambda *a: tuple(placed(function, list(a), places)), decomposition_table=table)(*fake)
        _prepare(traced)
        with tracing(TracingContext(mode)), V.set_fake_mode(mode):
            compile_fx._recursive_joint_graph_passes(traced, input_device=values[0].device)
            output = next(node for node in traced.graph.nodes if node.op == "output")
            output.meta["user_visible_output_idxs"] = [
                k for k, value in enumerate(output.args[0]) if isinstance(value, fx.Node)
            ]
            compile_fx.record_original_output_strides(traced)
            result = compile_fx.compile_fx_inner(
                traced, fake, cudagraphs=BoxedBool(graphs and any(v.is_cuda for v in values))
            )
    # What stands around this callable (profiling, counters) costs more than a small kernel.
    return getattr(result, "current_callable", None) or result


def placed(function: Kernel, values: list[torch.Tensor], places: Sequence[int | None] | None) -> Sequence[torch.Tensor]:
    """Call a function of a list, with results written into its arguments; returns the others.

    Raises:
        ValueError: a result is of another kind than the argument that it goes to.
    """
    if places is None:
        return function(values)
    arguments = list(values)
    results = function(values)
    for result, place in zip(results, places, strict=True):
        if place is not None:
            argument = arguments[place]
            if (result.shape, result.dtype, result.device) != (argument.shape, argument.dtype, argument.device):
                raise ValueError("a result has no place in memory of another kind")
            argument.copy_(result)
    return [result for result, place in zip(results, places, strict=True) if place is None]


def _prepare(traced: fx.GraphModule) -> None:
    """Drop what is dead, and let every output be a node of its own."""
    traced.graph.eliminate_dead_code()
    traced.recompile()


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, no modes of the caller's, and no compilation of his around ours."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.utils._python_dispatch._disable_current_modes())
        yield
