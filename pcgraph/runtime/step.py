"""A training step as one call: prediction, loss and learning, with no engine of autograd's in between.

The loss becomes part of the network, so that inference starts from an error of 1 at one output, and the gradients are
added to the parameters here as autograd would add them.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from ..errors import PCGraphError
from .compiled import Compiled
from .descent import finish, refuse_pending, stepped
from .run import Run

Loss = Callable[[Any, Any], torch.Tensor]


class Objective(torch.nn.Module):
    """A model and a loss: arguments and target in, a scalar out."""

    def __init__(self, model: torch.nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        owner = getattr(loss, "__self__", None)
        if isinstance(owner, torch.nn.Module):  # a method: its module may have parameters
            self.owner = owner

    def __call__(self, inputs: Any, target: Any) -> torch.Tensor:
        """As `forward`: hooks on all modules are not for this one, which the user does not know."""
        return self.forward(inputs, target)

    def forward(self, inputs: Any, target: Any) -> torch.Tensor:
        """The loss of the model's output."""
        if isinstance(inputs, dict):
            output = self.model(**inputs)
        else:
            output = self.model(*inputs) if isinstance(inputs, tuple) else self.model(inputs)
        return one_number(self.loss(output, target))


def one_number(value: Any) -> torch.Tensor:
    """What a loss has returned, if it is a loss."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.is_complex():
        tensor = isinstance(value, torch.Tensor)
        what = f"{value.dtype} of shape {list(value.shape)}" if tensor else f"a {type(value).__name__}"
        raise PCGraphError(f"the loss of a step must be one real number, not {what}", hint="reduce it: .mean()")
    return value


def squared_loss(target: Any) -> Callable[[Any], torch.Tensor]:
    """``1/2 sum (target - output)^2``, which clamps the outputs to the target."""
    wanted = [t for t in tree_leaves(target) if isinstance(t, torch.Tensor)]

    def loss(output: Any) -> torch.Tensor:
        got = [t for t in tree_leaves(output) if isinstance(t, torch.Tensor)]
        if [t.shape for t in got] != [t.shape for t in wanted]:
            raise PCGraphError(
                f"the target has shapes {[tuple(t.shape) for t in wanted]}, the output {[tuple(t.shape) for t in got]}",
                hint="give a target like the model's output, or a loss",
            )
        return torch.stack([((y - mu) ** 2).sum() for y, mu in zip(wanted, got, strict=True)]).sum() / 2

    return loss


def identity(loss: Loss) -> Any:
    """What tells losses apart: a method is made anew each time that somebody asks for it."""
    return (id(loss.__self__), id(loss.__func__)) if isinstance(loss, types.MethodType) else id(loss)


def learn_from(compiled: Compiled, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Predict, let the errors come down from the only output, and add up the gradients; returns the output."""
    values = compiled.binding.values(inputs)
    leaves = [values[i] for i in compiled.sources[0]]
    if not compiled.straight or watched_by_the_engine(leaves):
        value: torch.Tensor = compiled(inputs)
        value.backward()  # the engine sees one node per segment of the network, and what is outside; no vertex
        return value.detach()
    with torch.no_grad():
        value, gradients = learned(compiled, values, leaves)
        if compiled.copied is None:
            compiled.copied = [
                g is not None and (twice or not _laid_out_like(g, leaf))
                for g, twice, leaf in zip(gradients, _overlapping(gradients), leaves, strict=True)
            ]
        for leaf, gradient, copied in zip(leaves, gradients, compiled.copied, strict=True):
            if gradient is not None:
                _add(leaf, gradient, copied)
    return value.detach() if value.requires_grad else value  # it may be a leaf, looked at differently


def descend_from(compiled: Compiled, inputs: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """`learn_from`, and the optimizer's step: inside of the program where that is plain gradient descent.

    Raises:
        PCGraphError: a parameter has a gradient already.
    """
    refuse_pending(optimizer)
    values = compiled.binding.values(inputs)
    leaves = [values[i] for i in compiled.sources[0]]
    fused = not (compiled.program.backend.exact or compiled.watch or compiled.stale)
    if fused and compiled.straight and not watched_by_the_engine(leaves):
        plan = compiled.descents.plan(optimizer, leaves, inputs)
        if plan is not None and plan.function is None:
            ends = compiled.program.ends[0]
            names = {ends[k].vertex: k for k in plan.places}
            plan.function = compiled.program.descending(frozenset(names)) or False
            plan.order = [names[name] for name in compiled.program.externals if name in names]
        if plan is not None and plan.function:
            with torch.no_grad():
                (value,), gradients = plan.function(values, plan.rates())
                for leaf, gradient in zip(leaves, gradients, strict=True):  # of another optimizer, or none
                    if gradient is not None:
                        _add(leaf, gradient, copied=True)
            stepped(optimizer)
            return value
    value = learn_from(compiled, inputs)
    finish(optimizer)
    return value


def learned(
    compiled: Compiled, values: list[Any], leaves: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
    """The output, and the gradients."""
    together = None if compiled.watch or compiled.stale else compiled.program.together
    if together is not None:  # nobody looks in between: nothing to keep, to hand over, to check for writes
        (value,), gradients = together(values)
        return value, gradients
    run = Run(compiled, values, leaves)
    run.predict()
    value = run.outputs[0]
    return value, run.learn(0, (torch.ones_like(value),), keep=False)


def accumulate(
    leaves: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], copied: Sequence[bool] | None = None
) -> Sequence[bool] | None:
    """Add gradients to leaves as autograd would.

    Args:
        leaves: what learns.
        gradients: one per leaf.
        copied: which gradients have to be copied, if it is known from a call like this one.

    Returns:
        That, or None if it was not asked for.
    """
    if watched_by_the_engine(leaves):
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.backward(gradient)  # this leaf's accumulation alone, with its hooks
        return copied
    if copied is None:
        shared = _overlapping(gradients)
        copied = [twice or not _laid_out_like(g, t) for twice, g, t in zip(shared, gradients, leaves, strict=True)]
    for leaf, gradient, copy in zip(leaves, gradients, copied, strict=True):
        _add(leaf, gradient, copy)
    return copied


def watched_by_the_engine(leaves: Sequence[torch.Tensor]) -> bool:
    """Whether somebody waits for what only the engine does: call hooks, go on to what made an input."""
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda") or torch.is_anomaly_enabled():
        return True
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return True  # hooks that no Python code can see
    return any([t._backward_hooks or t._post_accumulate_grad_hooks or t.grad_fn is not None for t in leaves])


def _add(leaf: torch.Tensor, gradient: torch.Tensor, copied: bool) -> None:
    """What autograd does at a leaf: the first gradient becomes ``.grad``, others are added in place."""
    if gradient.layout is not torch.strided or (leaf.grad is not None and leaf.grad.layout is not torch.strided):
        leaf.backward(gradient)  # sparse: the engine has rules for it; it runs this leaf's accumulation alone
    elif leaf.grad is not None:
        leaf.grad += gradient
    elif not copied:
        leaf.grad = gradient
    elif _dense(leaf):
        strided = torch.empty_strided(leaf.shape, leaf.stride(), dtype=gradient.dtype, device=gradient.device)
        leaf.grad = strided.copy_(gradient)
    else:
        leaf.grad = gradient.clone(memory_format=torch.contiguous_format)


def _overlapping(gradients: Sequence[torch.Tensor | None]) -> list[bool]:
    """Which gradients have entries in memory that another one uses as well: a leaf must have its own.

    Autograd looks at the objects alone: after ``(a.squeeze() + b.squeeze()).backward()`` two leaves have one memory for
    their gradients, and the second call adds both to both.
    """
    spans = [(*_span(g), k) for k, g in enumerate(gradients) if g is not None and g.layout is torch.strided]
    twice = {k for (_, end, j), (begin, _, i) in pairwise(sorted(spans)) if begin < end for k in (i, j)}
    counts = Counter(map(id, gradients))
    return [k in twice or counts[id(gradient)] > 1 for k, gradient in enumerate(gradients)]


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Addresses of the first entry and behind the last one."""
    begin = tensor.data_ptr()
    if not tensor.numel():
        return begin, begin
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + (last + 1) * tensor.element_size()


def _laid_out_like(gradient: torch.Tensor, leaf: torch.Tensor) -> bool:
    """Autograd's contract for ``.grad``: strides like the leaf's, or contiguous where the leaf's have gaps."""
    if gradient.layout is not torch.strided:
        return True
    if not _dense(leaf):
        return gradient.is_contiguous()
    places = zip(gradient.shape, gradient.stride(), leaf.stride(), strict=True)
    return all(size == 1 or mine == its for size, mine, its in places)


def _dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's entries fill its memory, each once, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
