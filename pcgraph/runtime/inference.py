"""Inference learning on the compiled network: what `PCNetwork.learn` and `PCNetwork.infer` do.

The network is predicted once, relaxes for T steps, and then every parameter learns from the errors beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from ..codegen import ErrorInference, FixedInference, Inference
from ..codegen.program import PROGRAMS, Program
from ..dynamics import IL, ZIL, ErrorPC, FixedPrediction, Rule
from ..dynamics.readout import simulated
from ..dynamics.rule import check_rule
from ..dynamics.trace import label
from ..errors import PCGraphError
from ..graph import Role
from ..schedule import schedule
from .descent import Plan, finish, refuse_pending, stepped
from .face import Face, captured
from .relaxation import Inferred, inferred, relax
from .step import Loss, accumulate, watched_by_the_engine

if TYPE_CHECKING:
    from .compiled import Compiled
    from .network import PCNetwork

Compilable = IL | FixedPrediction | ErrorPC
inferences: WeakKeyDictionary[Program, dict[Any, Inference]] = WeakKeyDictionary()
_WAVES: dict[type[Rule], type[FixedInference]] = {FixedPrediction: FixedInference, ErrorPC: ErrorInference}


def is_compiled(rule: Rule) -> bool:
    """Whether there are programs for a rule."""
    return isinstance(rule, Compilable) and rule.plain


def inference_of(
    program: Program, looking: bool = False, descending: frozenset[str] = frozenset(), rule: type[Rule] = IL
) -> Inference:
    """The inference program of a network; made once for each rule, whatever T and gamma."""
    made = inferences.setdefault(program, {})
    key = (rule, looking, descending)
    if key not in made:
        graph = simulated(program.graph, levelled=True)
        if not graph.depth:
            raise PCGraphError("no output carries an error", hint="an output must need a gradient")
        scheduled = schedule(graph, IL(steps=graph.steps + 1))
        if rule in _WAVES:
            made[key] = _WAVES[rule](scheduled, PROGRAMS, looking)
        else:
            made[key] = Inference(scheduled, PROGRAMS, looking, backend=program.backend, descending=descending)
    return made[key]


class _Session:
    """One call: inference from the model's prediction of these inputs.

    Raises:
        PCGraphError: nothing learns; autocast is on; or the model keeps tensors.
    """

    def __init__(
        self,
        network: PCNetwork,
        inputs: Any,
        target: Any,
        loss: Loss,
        rule: Compilable,
        looking: bool,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        tensors, self.compiled = compiled_call(network, inputs)
        binding, program = self.compiled.binding, self.compiled.program
        self.inference = inference_of(program, looking, rule=type(rule))
        values = binding.values(tensors)
        own = dict(zip(self.inference.externals, values, strict=True))
        self.leaves = [own[name] for name in self.inference.leaves]
        plan: Plan | None = None
        if (
            optimizer is not None
            and isinstance(rule, IL)
            and not program.backend.exact
            and not watched_by_the_engine(self.leaves)
        ):
            plan = self.compiled.inferring.plan(optimizer, self.leaves, tensors)
        if plan is not None:
            descending = inference_of(program, looking, frozenset(self.inference.leaves[k] for k in plan.places))
            if descending.possible:
                self.inference = descending
            else:
                plan = None
        self.descended = plan is not None
        rates, places = ([], ()) if plan is None else (plan.rates(), plan.places)
        self.face = Face(network._with_loss(loss, alone=True), binding.rebuild, self.inference, target, looking)
        with torch.no_grad():
            found, self.looked = self.inference.run(values, self.face, rule.steps, rule.gamma, rates)
        kept = [k for k in range(len(self.leaves)) if k not in places]
        found, self.leaves = [found[k] for k in kept], [self.leaves[k] for k in kept]
        self.complete = all([gradient is not None for gradient in found])
        self.gradients: list[torch.Tensor] = found
        if not self.complete:
            pairs = zip(self.leaves, found, strict=True)
            self.gradients = [torch.zeros_like(leaf) if g is None else g for leaf, g in pairs]


def compiled_call(network: PCNetwork, inputs: Any) -> tuple[list[torch.Tensor], Compiled]:
    """The tensors of a call, and its program.

    Raises:
        PCGraphError: autocast is on, or the model keeps tensors.
    """
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        raise PCGraphError("inference learning under autocast", hint="use autocast inside of the model")
    args, kwargs = (
        ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    )
    tensors, capture = captured(network, args, kwargs)
    compiled: Compiled = capture.compiled
    binding = compiled.binding
    if binding.held or binding.changed or binding.woken:
        raise PCGraphError(
            "the model keeps a tensor that needs a gradient, or writes to an argument",
            hint="return the tensor instead; pcn.step learns from such a model",
        )
    return tensors, compiled


def learn(
    network: PCNetwork,
    inputs: Any,
    target: Any,
    loss: Loss,
    rule: Rule,
    optimizer: torch.optim.Optimizer | None = None,
) -> torch.Tensor:
    """Infer, and add the gradients to the leaves; returns the loss of the model's own prediction.

    With an optimizer, which takes its step: inside of the program where that is plain gradient descent.
    """
    check_rule(rule)
    if rule == ZIL():
        return network.step(inputs, target, loss, optimizer)
    if optimizer is not None:
        refuse_pending(optimizer)
    if not is_compiled(rule):
        return relax(*compiled_call(network, inputs), target, loss, rule, optimizer)
    assert isinstance(rule, Compilable)
    session = _Session(network, inputs, target, loss, rule, looking=False, optimizer=optimizer)
    if session.leaves:
        copied = accumulate(session.leaves, session.gradients, session.inference.copied if session.complete else None)
        if session.complete:
            session.inference.copied = copied
    if optimizer is not None:
        (stepped if session.descended else finish)(optimizer)
    return session.face.losses[0]


def infer(network: PCNetwork, inputs: Any, target: Any, loss: Loss, rule: Rule) -> Inferred:
    """Infer, and show every node; no ``p.grad`` is touched."""
    check_rule(rule)
    if not is_compiled(rule):
        return inferred(*compiled_call(network, inputs), target, loss, rule)
    assert isinstance(rule, Compilable)
    session = _Session(network, inputs, target, loss, rule, looking=True)
    result = Inferred([value.item() for value in session.face.losses])
    for ref, (value, error) in zip(session.inference.looks, session.looked, strict=True):
        result.values[label(ref)] = value.clone() if error is None else value
        result.errors[label(ref)] = torch.zeros_like(value) if error is None else -error
    graph = session.inference.graph
    for name, gradient in zip(session.inference.leaves, session.gradients, strict=True):
        vertex = graph[name]
        if vertex.role is Role.INPUT:
            result.input_gradients[name] = gradient
        else:
            result.gradients[vertex.module_path or name] = gradient
    return result
