"""Learning by rules that have no program of their own: the simulation, on the model's own tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ..dynamics import IncrementalPC, Rule, Trace, simulate
from ..dynamics.trace import qualified
from ..errors import PCGraphError
from ..graph import Role
from .descent import finish
from .step import Loss, accumulate, one_number

if TYPE_CHECKING:
    from .compiled import Compiled

Tensors = Mapping[str, torch.Tensor]


@dataclass(eq=False)
class Inferred:
    """A network after inference. Values are named by their vertex, output k > 0 as ``"name.k"``.

    Attributes:
        losses: [T+1] the loss at the outputs' predictions of every time; the first is the model's own.
        values: value nodes ``x_v(T)``.
        errors: error nodes ``eps_v(T) = x_v - mu_v``, in the paper's sign; of outputs ``-dL/dmu_v``.
        gradients: parameter -> gradient in PyTorch's sign, by the model's qualified name. Where no error has arrived
            by T it is 0.
        input_gradients: the same for inputs that ask for one, by vertex name.
    """

    losses: list[float]
    values: dict[str, torch.Tensor] = field(default_factory=dict)
    errors: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    input_gradients: dict[str, torch.Tensor] = field(default_factory=dict)


def relax(
    tensors: Sequence[torch.Tensor],
    compiled: Compiled,
    target: Any,
    loss: Loss,
    rule: Rule,
    optimizer: torch.optim.Optimizer | None,
) -> torch.Tensor:
    """Infer and learn by `rule`; returns the loss of the model's own prediction.

    Args:
        tensors: of the call.
        compiled: the call's program, for its graph and the tensors that it is bound to.
        target: second argument of the loss.
        loss: ``(output, target)`` -> tensor with one element.
        rule: any.
        optimizer: takes its step; of a rule that learns online at every inference step.

    Raises:
        PCGraphError: the rule learns online, and nothing says at which rate.
    """
    values, leaves = _bound(tensors, compiled)
    first: list[torch.Tensor] = []
    update = None
    if isinstance(rule, IncrementalPC):
        update, rule = _online(leaves, rule, optimizer)
    trace = _run(compiled, values, lambda output: _kept(first, loss(output, target)), rule, update)
    if update is None:
        found = {**_parameters(trace), **trace.input_gradients}
        gradients = [found[name] if name in found else torch.zeros_like(leaf) for name, leaf in leaves.items()]
        accumulate(list(leaves.values()), gradients, None)
        if optimizer is not None:
            finish(optimizer)
    return first[0].detach()


def inferred(tensors: Sequence[torch.Tensor], compiled: Compiled, target: Any, loss: Loss, rule: Rule) -> Inferred:
    """The same inference, to look at."""
    values, leaves = _bound(tensors, compiled)
    trace = _run(compiled, values, lambda output: loss(output, target), rule, None)
    inputs = {vertex.name for vertex in trace.graph.role(Role.INPUT)}  # their errors are their gradients
    values, errors = (
        {name: tensor for name, tensor in nodes.items() if name not in inputs}
        for nodes in (trace.final_values, trace.final_errors)
    )
    result = Inferred(trace.losses, values, errors, trace.gradients, trace.input_gradients)
    found = _parameters(trace)
    for vertex in trace.graph.role(Role.PARAMETER):
        if vertex.name in leaves and vertex.name not in found:
            result.gradients[qualified(vertex)] = torch.zeros_like(leaves[vertex.name])
    return result


def _bound(tensors: Sequence[torch.Tensor], compiled: Compiled) -> tuple[Tensors, Tensors]:
    """All that the graph reads, by vertex, and what of it learns."""
    program = compiled.program
    values = dict(zip(program.externals, compiled.binding.values(tensors), strict=True))
    graph = program.graph
    roles = (Role.PARAMETER, Role.INPUT)
    learning = {name: values[name] for name in values if name in graph.depth and graph[name].role in roles}
    if not learning:
        raise PCGraphError("neither a parameter nor an input requires a gradient", hint="unfreeze one of them")
    return values, learning


def _run(
    compiled: Compiled,
    values: Tensors,
    objective: Callable[[Any], torch.Tensor],
    rule: Rule,
    update: Callable[[Tensors], None] | None,
) -> Trace:
    return simulate(
        compiled.program.graph,
        values,
        loss=lambda outputs: one_number(objective(compiled.binding.rebuild(outputs))),
        rule=rule,
        coordinates="error",  # as the compiled rules: a small error beside a large prediction keeps its digits
        in_place=True,
        update=update,
    )


def _kept(first: list[torch.Tensor], loss: torch.Tensor) -> torch.Tensor:
    """The loss, and it is remembered if it is the first one."""
    if not first:
        first.append(loss)
    return loss


def _online(
    leaves: Tensors, rule: IncrementalPC, optimizer: torch.optim.Optimizer | None
) -> tuple[Callable[[Tensors], None], Rule]:
    """What takes the gradients of every inference step, and the rule that leaves it to do so."""
    if optimizer is None:
        rate = rule.rate
        if rate is None:
            raise PCGraphError(
                "this rule changes parameters during inference, and needs a rate to do so",
                hint="IncrementalPC(..., rate=0.01), or pcn.learn(..., rule, optimizer)",
            )

        def descend(gradients: Tensors) -> None:
            with torch.no_grad():
                for name, gradient in gradients.items():
                    leaves[name].sub_(gradient, alpha=rate)

        return descend, replace(rule, rate=None)
    if rule.rate is not None:
        raise PCGraphError(
            "a rate and an optimizer", hint="IncrementalPC(gamma, steps) leaves the rate to the optimizer"
        )

    def step(gradients: Tensors) -> None:
        for name, gradient in gradients.items():
            leaves[name].grad = gradient
        finish(optimizer)

    return step, rule


def _parameters(trace: Trace) -> dict[str, torch.Tensor]:
    """The gradients by vertex."""
    found = {vertex.name: trace.gradients.get(qualified(vertex)) for vertex in trace.graph.role(Role.PARAMETER)}
    return {name: gradient for name, gradient in found.items() if gradient is not None}
