"""`PCNetwork`: a drop-in for the user's module that learns by predictive coding."""

from __future__ import annotations

import copy
import fnmatch
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from ..dynamics import Rule, Trace
from ..errors import PCGraphError
from ..graph import PCGraph, Ref
from ..schedule import Schedule
from .compiled import Compiled
from .facade import Facade, class_for
from .face import LossAlone
from .inference import infer, learn
from .recent import Signatures
from .relaxation import Inferred
from .signature import Given, Signature
from .simulation import simulation
from .step import Loss, Objective, descend_from, identity, learn_from
from .surroundings import hide_from_compiler, refuse_surroundings

MAX_VARIANTS = 16  # settings of the model per signature
MAX_LOSSES = 8


_thread = threading.local()


@contextmanager
def capturing() -> Iterator[None]:
    """While a network is captured on this thread, networks inside of it are the modules that they stand for."""
    before = getattr(_thread, "capturing", False)
    _thread.capturing = True
    try:
        yield
    finally:
        _thread.capturing = before


class Captures(Protocol):
    """What the network needs from the front end: turn one call into a compiled program."""

    def __call__(
        self, module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], network: PCNetwork
    ) -> Capture: ...


class Capture(Protocol):
    """A compiled call and the conditions under which it may be used again."""

    compiled: Compiled
    once: tuple[str, ...]
    timings: dict[str, float]

    @property
    def asks(self) -> bool:
        """Whether `holds` depends on the values of the inputs."""
        ...

    def holds(self, inputs: Sequence[torch.Tensor], memories: Sequence[int]) -> bool:
        """Whether the program is right for inputs of the same signature, which lie in these memories."""
        ...


class NothingYet(PCGraphError, AttributeError):
    """There is no graph yet: to ``hasattr`` and to whoever goes through all attributes, the attribute is missing."""


class PCNetwork(Facade):
    """The user's module with value and error nodes on every vertex.

    Calling it predicts exactly like the module; ``backward()`` on a loss of its output runs Z-IL inference, and
    every ``p.grad`` equals backpropagation's, bit for bit. Parameters, buffers and submodules *are* the module's:
    ``state_dict()`` has the module's keys, and anything set on the network is set on the module. Names of the network's
    own (``graph``, ``watch``, ...) hide attributes of the module that are called the same: ``pcn.module.graph``. Hooks
    on calls belong to the network, and fire around it. Under ``torch.no_grad()`` the network is the plain module.

    Args:
        module: the model; never copied or changed.
        front: captures and compiles one call (see `pcgraph.compile`).
        options: passed on to copies.

    Attributes:
        module: the user's module.
        graph: `PCGraph` of the latest captured call.
        schedule: its Z-IL schedule.

    Source: Z-IL, arXiv 2103.03725.
    """

    def __init__(self, module: torch.nn.Module, front: Captures, options: dict[str, Any]) -> None:
        super().__init__(module)
        own = self.__dict__
        own["_front"], own["_options"] = front, options
        own["_programs"] = OrderedDict()  # signature -> captures, latest used last
        own["_signatures"] = Signatures()
        own["_latest"] = None
        own["_watching"], own["_errors"] = (), {}
        own["_objectives"] = {}  # by loss, networks of the model and that loss
        own["_counts"] = {"hits": 0, "captures": 0}

    # -- calling ---------------------------------------------------------------------------------
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Predict. With gradients enabled, the result remembers how to learn.

        Raises:
            CaptureError: a part of the model cannot be compiled without risking a wrong gradient.
            Exception: whatever the model itself raises on these arguments.
        """
        if not torch.is_grad_enabled() or getattr(_thread, "capturing", False):
            return self.module(*args, **kwargs)
        refuse_surroundings()
        given = self._signatures.of(args, kwargs)
        compiled = self._program_for(args, kwargs, given)
        return self.module(*args, **kwargs) if compiled is None else compiled(given.tensors)

    hide_from_compiler(forward)

    def _program_for(self, args: Sequence[Any], kwargs: Mapping[str, Any], given: Given) -> Compiled | None:
        """The program of a call; None if there is nothing to learn."""
        capture = self._find(given)
        if capture is None:
            if not any(t.requires_grad for t in (*self.parameters(), *given.tensors)):
                return None
            capture = self._capture(args, kwargs, given.signature)
        else:
            self._counts["hits"] += 1
        compiled = capture.compiled
        if self._watching or compiled.watch:
            compiled.watch = self._watched_refs(compiled.program.graph)
        return compiled

    def _find(self, given: Given) -> Capture | None:
        inputs, memories, signature = given
        candidates: list[Capture] | None = self._programs.get(signature)
        if candidates:
            for place, capture in enumerate(candidates):
                if capture.holds(inputs, memories):
                    if place:
                        candidates.insert(0, candidates.pop(place))
                    if len(self._programs) > 1:
                        self._programs.move_to_end(signature)
                    return capture
        return None

    def _capture(self, args: Sequence[Any], kwargs: Mapping[str, Any], signature: Signature) -> Capture:
        start = time.perf_counter()
        capture = self._front(self.module, args, kwargs, self)
        capture.timings["total"] = time.perf_counter() - start
        self._counts["captures"] += 1
        self.__dict__["_latest"] = capture
        if not capture.once:
            candidates = self._programs.setdefault(signature, [])
            candidates.insert(0, capture)
            del candidates[MAX_VARIANTS:]
            self._programs.move_to_end(signature)
            while len(self._programs) > self._options["max_programs"]:
                self._programs.popitem(last=False)
        return capture

    def prepare(self, *args: Any, **kwargs: Any) -> PCNetwork:
        """Capture and compile for these arguments now; returns the network."""
        with torch.enable_grad():
            refuse_surroundings()
            given = self._signatures.of(args, kwargs)
            if self._find(given) is None:
                self._capture(args, kwargs, given.signature)
        return self

    def step(
        self, inputs: Any, target: Any, loss: Loss, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.Tensor:
        """Prediction, loss and learning in one call: ``loss(pcn(inputs), target).backward()``, with less around it.

        The loss is captured as a part of the network, whose only output it is. Every ``p.grad`` is what the two lines
        would have made it, to the bit. The engine takes part only where somebody waits for it: hooks on parameters and
        inside of the model, inputs with a history, torch.distributed. Hooks on gradient functions are not seen.

        Args:
            inputs: the argument of the call; a tuple of several, or a dict of keyword arguments.
            target: second argument of `loss`.
            loss: ``(output, target)`` -> tensor with one element; a function or a module. Pass the same one at every
                step: each is captured for itself.
            optimizer: takes its step in the same call; ``p.grad`` of its parameters must be None before and is None
                after. A plain ``SGD`` is part of the program under the back end inductor.

        Returns:
            The loss, without a history.

        Raises:
            PCGraphError: the loss is not one real number, nothing learns, gradients are switched off, or the network
                itself (not the model) has hooks or another ``forward``; or a parameter of `optimizer` has a gradient.
            CaptureError: a part of the model or of the loss cannot be compiled without risking a wrong gradient.

        >>> import torch, pcgraph
        >>> pcn = pcgraph.compile(torch.nn.Linear(3, 2))
        >>> value = pcn.step(torch.ones(4, 3), torch.zeros(4, 2), torch.nn.functional.mse_loss)
        >>> value.requires_grad, pcn.weight.grad.shape
        (False, torch.Size([2, 3]))
        """
        if not torch.is_grad_enabled():
            raise PCGraphError("a step needs gradients, which are switched off", hint="leave torch.no_grad() first")
        refuse_surroundings()
        if self._hooked():
            raise PCGraphError(
                "hooks and a forward() that are set on the network have no part in a step, which calls the model",
                hint="set them on `pcn.module`, or write loss(pcn(x), y).backward()",
            )
        whole = self._with_loss(loss)
        given = whole._signatures.of((inputs, target), {})
        compiled = whole._program_for((inputs, target), {}, given)
        if compiled is None:
            raise PCGraphError("neither a parameter nor an input requires a gradient", hint="unfreeze one of them")
        self.__dict__["_latest"] = whole._latest
        if optimizer is None:
            return learn_from(compiled, given.tensors)
        return descend_from(compiled, given.tensors, optimizer)

    def learn(
        self, inputs: Any, target: Any, loss: Loss, rule: Rule, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.Tensor:
        """Learning by any rule: predict, let value nodes relax, and learn from the errors there.

        Equal to `simulate` of the same rule, to rounding. The gradients are added to ``p.grad``, for any optimizer.
        ``ZIL()`` is `step`. ``IL``, ``FixedPrediction`` and ``ErrorPC`` with a gamma and a T run by the same local
        programs; both are numbers, for which nothing is compiled anew. Everything else runs by the simulation, a Python
        call per vertex and step.
        `IncrementalPC` learns online: it changes the parameters at every inference step, and leaves no ``p.grad``.

        Args:
            inputs: the argument of the call; a tuple of several, or a dict of keyword arguments.
            target: second argument of `loss`.
            loss: ``(output, target)`` -> tensor with one element. Pass the same one at every step.
            rule: `IL(gamma, steps)`, `ZIL()`, `FixedPrediction()`, ...
            optimizer: as in `step`.

        Returns:
            The loss of the model's own prediction, without a history.

        Raises:
            PCGraphError: the loss is not one real number, nothing learns, or a rule learns online and has no rate.
            CaptureError: a part of the model or of the loss cannot be compiled.

        >>> import torch, pcgraph
        >>> pcn, loss = pcgraph.compile(torch.nn.Linear(3, 2)), torch.nn.functional.mse_loss
        >>> value = pcn.learn(torch.ones(4, 3), torch.zeros(4, 2), loss, pcgraph.IL(gamma=0.1, steps=20))
        >>> pcn.weight.grad.shape
        torch.Size([2, 3])
        """
        return learn(self, inputs, target, loss, rule, optimizer)

    def infer(self, inputs: Any, target: Any, loss: Loss, rule: Rule) -> Inferred:
        """The same inference as `learn`, to look at: every value and error node at T. No ``p.grad`` is filled."""
        return infer(self, inputs, target, loss, rule)

    def _with_loss(self, loss: Loss, alone: bool = False) -> PCNetwork:
        """The network of the model and a loss, or of the loss alone."""
        key = (identity(loss), alone)
        whole: PCNetwork | None = self._objectives.get(key)
        if whole is None:
            model = LossAlone(loss) if alone else Objective(self.module, loss)
            whole = self._objectives[key] = network_of(model, self._front, self._options)
            if not alone:
                whole.__dict__["_counts"] = self._counts
            if len(self._objectives) > MAX_LOSSES:
                self._objectives.pop(next(iter(self._objectives)))
        if (self._watching or whole._watching) and not alone:
            whole.__dict__["_watching"], whole.__dict__["_errors"] = self._watching, self._errors
        return whole

    def simulate(
        self,
        *args: Any,
        target: Any = None,
        loss: Callable[[Any], torch.Tensor] | None = None,
        rule: Rule | None = None,
        dtype: torch.dtype | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Trace:
        """Run inference on the whole levelled network: every value and error node, at every step.

        Nothing of the model is changed and no ``p.grad`` is filled; `Trace.gradients` has the gradients.

        Args:
            *args: positional arguments of the call.
            **kwargs: keyword arguments of the call.
            target: like the model's output; the loss is then ``1/2 sum (target - output)^2``, which clamps the
                outputs to the target.
            loss: the model's output -> scalar, instead of `target`. Without either outputs are value nodes like
                others: free, or clamped by `options`.
            rule: `ZIL()` by default.
            dtype: run on a copy of the model in this type; float64 is what references are made in.
            options: further arguments of `pcgraph.dynamics.simulate`: ``clamp``, ``free``, ``mask``, ``energies``,
                ``record``, ``only``, ``progress``, ``coordinates``, ``levelled``, ``initial_error``, ``seed``.

        Raises:
            PCGraphError: both of `target` and `loss` are given, or neither and no clamp, or nothing carries an error.
            CaptureError: the model cannot be captured.
        """
        network = self
        if dtype is not None:
            network = network_of(copy.deepcopy(self.module).to(dtype), self._front, dict(self._options))
        return simulation(network, args, kwargs, target, loss, rule, dtype, dict(options or {}))

    # -- looking ---------------------------------------------------------------------------------
    @property
    def graph(self) -> PCGraph:
        """Graph of the latest captured call.

        Raises:
            PCGraphError: nothing was captured yet.
        """
        return self._last().compiled.program.graph

    @property
    def schedule(self) -> Schedule:
        """Z-IL schedule of the latest captured call."""
        return self._last().compiled.program.schedule

    @property
    def sources(self) -> dict[str, str]:
        """Generated Python of the latest program: ``predict`` and ``learn``."""
        return self._last().compiled.program.sources

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of the latest capture, by stage."""
        return dict(self._last().timings)

    def cache_info(self) -> dict[str, Any]:
        """How often programs were reused, how many are kept, and why the latest capture could not be kept.

        ``uncompiled`` are the parts of the latest program that the back end left as they are, and why.
        """
        latest = self.__dict__["_latest"]
        kept = sum(len(captures) for captures in self._programs.values())
        once = latest.once if latest is not None else ()
        uncompiled = dict(latest.compiled.program.backend.uncompiled) if latest is not None else {}
        return {**self._counts, "programs": kept, "once": once, "uncompiled": uncompiled}

    @contextmanager
    def watch(self, *patterns: str) -> Iterator[dict[str, torch.Tensor]]:
        """Look at error nodes: inside the block every learning phase fills the dictionary.

        Args:
            patterns: names of vertices or module paths, with ``*``; none means all.

        Yields:
            Vertex name -> error node ``eps_v`` at its update time, in the paper's sign (``-dL/dmu_v``), of the shape
            of the vertex's value; further outputs of a vertex as ``name.1``.
        """
        self.__dict__["_watching"] = patterns or ("*",)
        errors: dict[str, torch.Tensor] = {}
        self.__dict__["_errors"] = errors
        try:
            yield errors
        finally:
            self.__dict__["_watching"], self.__dict__["_errors"] = (), {}

    def on_errors(self, watched: dict[Ref, Any]) -> None:
        """Called by a program after learning with the watched errors, in PyTorch's sign."""
        for ref, error in watched.items():
            if error is not None:
                self._errors[str(ref)[1:]] = -error

    def _watched_refs(self, graph: PCGraph) -> tuple[Ref, ...]:
        def matches(name: str, path: str) -> bool:
            return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(path, p) for p in self._watching)

        return tuple(
            Ref(v.name, k)
            for v in graph.vertices.values()
            if v.operation is not None and v.name in graph.depth and matches(v.name, v.module_path)
            for k, spec in enumerate(v.outputs)
            if spec is not None and spec.requires_grad
        )

    def __copy__(self) -> PCNetwork:
        twin = network_of(copy.copy(self.module), self._front, self._options)
        twin.__dict__.update(self._own_state())
        return twin

    def __reduce__(self) -> Any:
        return network_of, (self.module, self._front, self._options), self._own_state()

    def _last(self) -> Capture:
        latest: Capture | None = self.__dict__["_latest"]
        if latest is None:
            raise NothingYet(
                "nothing has been captured yet", hint="call the network once, or compile with example_inputs=(x,)"
            )
        return latest


def network_of(module: torch.nn.Module, front: Captures, options: dict[str, Any]) -> PCNetwork:
    """A network around a module, of a class that has the special methods of the module's (``len``, indices)."""
    return class_for(module, PCNetwork)(module, front, options)
