"""The contenders: ways to get from a batch to gradients on one and the same set of parameters."""

from __future__ import annotations

import copy
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import pcgraph

from .check import CLOSE, EQUAL, Learn, NotRun, Seen, bitwise, close, cosine, see
from .models import Workload
from .names import AGAIN, BASE

GAMMA = 0.1  # of inference learning
CHECKED = 3  # steps of it that are simulated for comparison


@dataclass
class Contender:
    """A way to learn.

    Attributes:
        learn: one step: clears the gradients, predicts, fills them; returns output (or None) and loss.
        check: from what `learn` did and what eager backprop did to a verdict; raises `NotRun`.
        network: of pcgraph, if it has one.
        step: a training step with its own update of the parameters; None where the optimizer's follows `learn`.
    """

    learn: Learn
    check: Callable[[Seen, Seen], dict[str, Any]]
    network: Any = None
    step: Callable[[], object] | None = None


class Makers:
    """Makes contenders of one workload.

    Args:
        work: what they all learn.
        draws: whether the model draws random numbers.
        il_steps: T of inference learning.
        limit: seconds that a simulation may take.
        seed: of the random state in checks.
    """

    def __init__(self, work: Workload, *, draws: bool, il_steps: int, limit: float, seed: int) -> None:
        self.work, self.draws, self.il_steps, self.limit, self.seed = work, draws, il_steps, limit, seed
        self.reference = work.model if work.unrolled is None else work.unrolled(work.model)
        self._networks: dict[str, Any] = {}

    def make(self, key: str) -> Contender:
        """A contender of `names.CONTENDERS`.

        Raises:
            NotRun: there is none of this kind here.
        """
        if key in (BASE, AGAIN):
            return Contender(self._twice(self.work.model), bitwise)
        if key == "unrolled":
            return Contender(self._twice(self.reference), lambda found, wanted: close(found, wanted, CLOSE, "close"))
        if key == "torch.compile":
            options: Any = {"fallback_random": True} if self.draws else None  # or it would draw others than eager
            compiled = torch.compile(self.work.model, dynamic=False, options=options)
            return Contender(self._twice(compiled), lambda found, wanted: close(found, wanted, CLOSE, "close"))
        if key in ("il", "inductor il"):
            return self._inference_learning(**({"backend": "inductor"} if key == "inductor il" else {}))
        if key == "inductor sgd":
            return self._descent(self._network(backend="inductor"), pcgraph.ZIL())
        if key == "simulation":
            return self._simulation()
        if key == "il simulation":
            energies: list[float] = []
            learn = self._simulated(pcgraph.IL(GAMMA, self.il_steps), energies)
            return Contender(learn, lambda found, wanted: _downhill(energies, found, wanted), self._network())
        options = {"inductor": {"backend": "inductor"}, "pcgraph low": {"memory": "low"}}.get(key.removesuffix(" step"))
        network = self._network(**(options or {}))
        learn = self._at_once(network) if key.endswith("step") else self._twice(network)
        if key.startswith("inductor"):
            return Contender(learn, lambda found, wanted: close(found, wanted, CLOSE, "close"), network)
        return Contender(learn, bitwise, network)

    def _network(self, **options: str) -> Any:
        """The model compiled with options; one network for the same ones."""
        for name, value in options.items():
            if name not in compile_options():
                raise NotRun(f"this version of pcgraph has no {name}={value!r}")
        key = str(options)
        if key not in self._networks:
            self._networks[key] = pcgraph.compile(self.work.model, **options)  # type: ignore[arg-type]
        return self._networks[key]

    def _twice(self, call: Callable[..., Any]) -> Learn:
        """Prediction and loss, then backward."""
        work, parameters = self.work, list(self.work.model.parameters())

        def learn() -> tuple[Any, torch.Tensor]:
            for parameter in parameters:
                parameter.grad = None
            output = call(*work.inputs)
            loss = work.loss(output, work.target)
            loss.backward()
            return output, loss

        return learn

    def _at_once(self, network: Any) -> Learn:
        work, parameters = self.work, list(self.work.model.parameters())
        inputs = work.inputs[0] if len(work.inputs) == 1 else work.inputs

        def learn() -> tuple[None, torch.Tensor]:
            for parameter in parameters:
                parameter.grad = None
            return None, network.step(inputs, work.target, work.loss)

        return learn

    def _simulated(self, rule: Any, energies: list[float] | None = None) -> Learn:
        """The whole network at every step; the energies over time are left behind."""
        work, network = self.work, self._network()
        parameters = dict(work.model.named_parameters())

        def learn() -> tuple[None, torch.Tensor]:
            # Z-IL with errors as the state: values as the state lose the digits of errors that are small beside them.
            coordinates = "error" if rule == pcgraph.ZIL() else "x"
            options = {"coordinates": coordinates, "progress": _in_time(self.limit)}
            trace = network.simulate(
                *work.inputs, loss=lambda output: work.loss(output, work.target), rule=rule, options=options
            )
            for name, parameter in parameters.items():
                parameter.grad = trace.gradients.get(name)
            if energies is not None:
                energies[:] = trace.energies
            return None, torch.tensor(trace.losses[0], dtype=torch.float64)

        return learn

    def _simulation(self) -> Contender:
        def as_backprop(found: Seen, wanted: Seen) -> dict[str, Any]:
            if _device(self.work).type == "mps":
                return close(found, wanted, CLOSE, "close")  # there is no float64 there
            double = copy.deepcopy(self.work).to(torch.float64)
            others = Makers(double, draws=self.draws, il_steps=self.il_steps, limit=self.limit, seed=self.seed)
            plain = see(double, others.make(BASE).learn, self.seed)
            full = see(double, others._simulated(pcgraph.ZIL()), self.seed)
            full.buffers = plain.buffers  # a simulation moves none
            return close(full, plain, EQUAL, "float64")

        return Contender(self._simulated(pcgraph.ZIL()), as_backprop, self._network())

    def _descent(self, network: Any, rule: Any) -> Contender:
        """A call that learns and updates; for the check, the gradient is what it changes at a rate of 1."""
        work, parameters = self.work, list(self.work.model.parameters())
        if work.lr is None:
            raise NotRun("no optimizer belongs to a step of this model")
        inputs = work.inputs[0] if len(work.inputs) == 1 else work.inputs
        optimizer, whole = (torch.optim.SGD(parameters, lr=lr) for lr in (work.lr, 1.0))

        def step() -> object:
            optimizer.zero_grad()
            return network.learn(inputs, work.target, work.loss, rule, optimizer)

        def learn() -> tuple[None, torch.Tensor]:
            before = [p.detach().clone() for p in parameters]
            whole.zero_grad()
            loss = network.learn(inputs, work.target, work.loss, rule, whole)
            with torch.no_grad():
                for p, old in zip(parameters, before, strict=True):
                    p.grad = old - p
                    p.copy_(old)
            return None, loss

        return Contender(learn, lambda found, wanted: close(found, wanted, CLOSE, "close"), network, step)

    def _inference_learning(self, **options: str) -> Contender:
        """Held against the simulation of a few steps; `learn` runs as many as were asked for."""
        work, network, parameters = self.work, self._network(**options), list(self.work.model.parameters())
        if not hasattr(network, "learn"):
            raise NotRun("this version of pcgraph does not compile inference learning")
        inputs = work.inputs[0] if len(work.inputs) == 1 else work.inputs
        whole = pcgraph.IL(GAMMA, self.il_steps)
        step = self._descent(network, whole).step if options and work.lr is not None else None

        def learner(rule: Any) -> Learn:
            def learn() -> tuple[None, torch.Tensor]:
                for parameter in parameters:
                    parameter.grad = None
                return None, network.learn(inputs, work.target, work.loss, rule)

            return learn

        def as_simulated(found: Seen, wanted: Seen) -> dict[str, Any]:
            rule = pcgraph.IL(GAMMA, min(CHECKED, self.il_steps))
            few, simulated = (see(work, learn, self.seed) for learn in (learner(rule), self._simulated(rule)))
            simulated.buffers = few.buffers
            return close(few, simulated, CLOSE, "simulated") | {"cosine": cosine(found.gradients, wanted.gradients)}

        return Contender(learner(whole), as_simulated, network, step)


def compile_options() -> set[str]:
    """Of this version of `pcgraph.compile`: back ends and savings of memory are looked for, not taken for granted."""
    return set(inspect.signature(pcgraph.compile).parameters)


def _downhill(energies: list[float], found: Seen, wanted: Seen) -> dict[str, Any]:
    if not energies[-1] <= energies[0]:
        raise NotRun(f"wrong: the energy rose from {energies[0]:.3g} to {energies[-1]:.3g}; gamma is too large")
    return {"kind": "energy falls", "cosine": cosine(found.gradients, wanted.gradients)}


def _device(work: Workload) -> torch.device:
    return next((p.device for p in work.model.parameters()), torch.device("cpu"))


def _in_time(limit: float) -> Callable[[int, int], None]:
    """A progress callback that gives up as soon as it is clear that the limit will not do."""
    begin = time.perf_counter()

    def progress(t: int, last: int) -> None:
        spent = time.perf_counter() - begin
        expected = spent * (last + 1) / (t + 1)
        if spent > limit or (spent > 0.1 * limit and expected > limit):
            raise NotRun(f"over limit: one step would take about {expected:,.0f} s")

    return progress
