"""`compile`: from a module to a `PCNetwork`, stage by stage. Read this file first.

The stages: capture -> lower -> schedule -> codegen -> runtime.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .capture import Captured, Unrepeatable, capture, lower
from .capture.regions import refuse_hooks_around
from .codegen import Program, backend_of
from .codegen.precision import settings
from .dynamics import ZIL
from .errors import CaptureError, PCGraphError
from .graph import PCGraph
from .graph.keys import Keys
from .passes import Fold
from .runtime import Binding, Compiled, Held, PCNetwork, capturing, checkpointed, hooks_off, network_of
from .schedule import schedule

_MAX_PROGRAMS = 256
_lock = threading.RLock()  # a capture patches torch for the whole process while it runs


def compile(
    model: torch.nn.Module,
    *,
    example_inputs: Sequence[Any] | None = None,
    strict: bool = False,
    unroll: bool = True,
    max_programs: int = 64,
    backend: str = "eager",
    mode: str = "default",
    memory: str = "default",
    value_nodes: str = "operations",
) -> PCNetwork:
    """Turn a model into a predictive coding network that learns exactly like backpropagation.

    Args:
        model: any `torch.nn.Module`; it is used, not copied.
        example_inputs: capture now, for these arguments, instead of at the first call.
        strict: refuse models in which a vertex stays opaque.
        unroll: give every time step of ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` vertices of its own. With ``False``
            such a module stays one vertex, equal to the fused kernel.
        max_programs: how many input signatures (shapes, dtypes, structures) are kept compiled; the one that was not
            used for longest goes first. After the first few sizes of a dimension nothing is traced any more:
            programs follow from those that there are, and are proven on random data.
        backend: ``eager`` runs torch's kernels one by one, to the bit like backprop. ``inductor`` lets torch's compiler
            fuse them: gradients equal backprop's up to rounding, and `verify` tells the distance. The first call
            compiles; it needs a C++ compiler on the CPU, Triton on CUDA.
        mode: of the back end ``inductor``: ``reduce-overhead`` records CUDA graphs (not run: no such machine).
        memory: ``"default"`` keeps what backprop keeps, so that learning peaks at backprop's memory. ``"low"`` keeps
            less and evaluates parts of the prediction once more while learning: the same gradients, buffers and random
            numbers, to the bit, for more time (see docs/memory.md).
        value_nodes: where there are value and error nodes. ``"operations"``: on every vertex of the captured graph.
            ``"layers"``: an operation without parameters that one vertex alone reads is part of that vertex, so that
            ``linear(tanh(x))`` predicts one value from another as in the papers (see `pcgraph.passes.Fold`). Z-IL's
            gradients are the same, to the bit; inference learning relaxes fewer nodes, and is another rule with them.

    Returns:
        A drop-in for the model (see `PCNetwork`).

    Raises:
        PCGraphError: `model` is not a module, or an option is out of range.
        CaptureError: a part of the model cannot be compiled without risking a wrong gradient.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    >>> pcn = compile(model, example_inputs=(torch.zeros(5, 3),))
    >>> pcn(torch.ones(5, 3)).sum().backward()
    >>> model[0].weight.grad.shape
    torch.Size([4, 3])
    """
    if isinstance(model, PCNetwork):
        model = model.module
    if not isinstance(model, torch.nn.Module):
        raise PCGraphError(
            f"compile takes a torch.nn.Module, not a {type(model).__name__}",
            hint="wrap a function in a module whose forward() calls it",
        )
    if max_programs < 1:
        raise PCGraphError(f"max_programs must be at least 1, not {max_programs}", hint="the default is 64")
    backend_of(backend, mode)
    if memory not in ("default", "low"):
        raise PCGraphError(f"memory must be 'default' or 'low', not {memory!r}", hint="the default is 'default'")
    if memory == "low" and backend != "eager":
        raise PCGraphError(
            f"memory='low' is not for the back end {backend!r}",
            hint="what is evaluated once more must round as before: use backend='eager'",
        )
    if value_nodes not in ("operations", "layers"):
        raise PCGraphError(
            f"value_nodes must be 'operations' or 'layers', not {value_nodes!r}", hint="the default is 'operations'"
        )
    options: dict[str, Any] = {"strict": strict, "unroll": unroll, "max_programs": max_programs}
    options |= {"backend": (backend, mode), "memory": memory, "value_nodes": value_nodes}
    network = network_of(model, _front, options)
    if example_inputs is not None:
        single = isinstance(example_inputs, torch.Tensor)
        network.prepare(*((example_inputs,) if single else example_inputs))
    return network


@dataclass
class _Capture:
    """A compiled call with its guards."""

    compiled: Compiled
    captured: Captured
    once: tuple[str, ...]
    timings: dict[str, float]

    @property
    def asks(self) -> bool:
        """Whether the model has read values of tensors."""
        return self.captured.guards.asks

    def holds(self, inputs: Sequence[torch.Tensor], memories: Sequence[int]) -> bool:
        """Whether the guards hold."""
        guards = self.captured.guards
        if self.captured.holds_any(inputs, memories):
            return False
        if guards.asks and checkpointed():  # what is evaluated for a question is none of a checkpoint's
            with hooks_off():
                return guards.hold(inputs)
        return guards.hold(inputs)


def _front(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], network: PCNetwork) -> _Capture:
    """All stages for one call."""
    clock = _Clock()
    options = network._options
    refuse_hooks_around()
    with _lock, _collector_paused(), capturing(), hooks_off():
        return _stages(module, args, kwargs, network, options, clock)


def _stages(
    module: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    network: PCNetwork,
    options: dict[str, Any],
    clock: _Clock,
) -> _Capture:
    aten = options.get("aten", False)
    try:
        captured = capture(module, args, kwargs, unroll=options["unroll"], aten=aten)
    except Unrepeatable:
        options["aten"] = True
        raise
    aten = options["aten"] = captured.aten  # a model that differentiates once will do so again
    clock.lap("capture")
    program = _program(_lowered(captured, options), captured, clock, options)
    if program.hides and not aten:
        # One of torch's calls adds to a returned value twice. Below torch's calls each addition is one of its own.
        options["aten"] = True
        if not captured.once:
            captured = capture(module, args, kwargs, unroll=options["unroll"], aten=True)
            program = _program(_lowered(captured, options), captured, clock, options)
    if program.hides and captured.kept:
        raise CaptureError(
            "the model keeps or hooks a value that one of torch's calls adds to more than once",
            where=captured.kept[0].where,
            hint="call the network again: it is captured in more detail from now on",
        )
    graph = program.graph
    if options["strict"] and program.opaque:
        name, reason = next(iter(program.opaque.items()))
        raise CaptureError(
            f"{len(program.opaque)} vertices stay opaque under strict=True; the first is {name}: {reason}",
            where=graph[name].where(),
            hint="compile without strict, or rewrite that operation",
        )
    compiled = Compiled(program, _binding(captured, program), network.on_errors, captured.stale)
    clock.lap("bind")
    return _Capture(compiled, captured, captured.once, clock.laps)


def _lowered(captured: Captured, options: dict[str, Any]) -> PCGraph:
    graph = lower(captured)
    captured.release()  # which takes more memory than all that comes after
    return Fold()(graph) if options.get("value_nodes") == "layers" else graph


def _memory(graph: PCGraph, captured: Captured, options: dict[str, Any]) -> str:
    """How a program is to use memory: as asked for, unless a write may reach what is read again."""
    written = {
        v.operands[i].vertex
        for v in graph.vertices.values()
        if v.operation is not None
        for i in v.operation.writes
        if graph[v.operands[i].vertex].operation is None
    }
    seen: dict[Any, str] = {}
    for name in written and captured.externals:
        tensor = captured.externals[name].tensor
        if tensor is None:  # an input: what it shares memory with is not known
            shared = name in written
        else:
            other = seen.setdefault(tensor.untyped_storage()._cdata if tensor.layout is torch.strided else name, name)
            shared = other != name and not written.isdisjoint((name, other))
        if shared:
            return "default"
    memory: str = options.get("memory", "default")
    return memory


_programs: OrderedDict[Any, Program] = OrderedDict()


def _program(graph: PCGraph, captured: Captured, clock: _Clock, options: dict[str, Any]) -> Program:
    """The program of a graph; equal graphs share one, so that a model captured at every call compiles once."""
    clock.lap("lower")
    backend, memory = options.get("backend", ("eager",)), _memory(graph, captured, options)
    key = (_graph_key(graph), backend, memory)
    program = _programs.get(key)
    if program is None:
        scheduled = schedule(graph, ZIL())
        clock.lap("schedule")
        program = _programs[key] = Program(scheduled, backend_of(*backend), memory)
        if program.opaque:
            program.annotate()
        while len(_programs) > _MAX_PROGRAMS:
            _programs.popitem(last=False)
        clock.lap("codegen")
    _programs.move_to_end(key)
    return program


def _graph_key(graph: PCGraph) -> Any:
    keys = Keys()
    return (
        settings(),
        graph.outputs,
        tuple(
            (
                v.name,
                v.role,
                v.operands,
                v.outputs,
                v.effect,
                v.module_path,
                v.source,
                v.checkpoint,
                keys.of(v.operation) if v.operation is not None else None,
            )
            for v in graph.vertices.values()
        ),
    )


def _binding(captured: Captured, program: Program) -> Binding:
    externals = [captured.externals[name] for name in program.externals]
    place = {name: i for i, name in enumerate(program.externals)}
    held = tuple(Held(k.tensor, k.output, k.input_index, k.retain, k.where) for k in captured.kept)
    return Binding(
        tuple(e.input_index for e in externals),
        tuple(e.tensor for e in externals),
        captured.outputs.rebuild,
        held,
        tuple((place[name], k) for name, k in captured.changed.items()),
        captured.woken,
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Compiling makes many objects that live on; collecting again and again would cost a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
