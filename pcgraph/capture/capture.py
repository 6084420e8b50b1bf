"""Capture: run a model once and return the graph of what it did."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch.nn.modules import module as _module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack
from torch.utils._pytree import TreeSpec, tree_flatten, tree_flatten_with_path, tree_leaves, tree_unflatten

from ..errors import CaptureError
from ..marks import marks
from .again import Before
from .captured import Captured, Kept, OutputSpec
from .comparable import comparable, not_comparable
from .externals import Externals, names_of
from .guards import Guards
from .lazy import materialise
from .leaks import (
    kept_tensors,
    open_dataclasses,
    refuse_effects,
    refuse_kept_leaves,
    refuse_shared_arrays,
    stale_values,
)
from .observer import storage_key
from .opened import opened
from .presented import Presented
from .pystate import PythonState
from .questions import Questions
from .recorder import Again, Recorder
from .recurrent import UNROLLED
from .regions import refuse_hooks_around


def capture(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    unroll: bool = True,
    aten: bool = False,
) -> Captured:
    """Run ``model(*args, **kwargs)`` once, for real, and write down what it did as a torch.fx graph.

    The run leaves no trace: buffers, inputs and torch's random state are put back. Python side effects of the
    model (counters, appended lists) do happen; they make the result valid for one call only (`Captured.once`).

    Args:
        model: any module; its mode (train, eval), autocast and ``requires_grad`` flags are taken as they stand.
        args: positional arguments of the call, any pytree.
        kwargs: keyword arguments of the call.
        unroll: give every time step of ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` vertices of its own.
        aten: record ATen calls instead of torch's; done by itself for a model that differentiates inside.

    Raises:
        CaptureError: the model does something whose gradient could not be guaranteed.
        Exception: whatever the model itself raises on these arguments; what it did until then stays done.
    """
    materialise(model, args, kwargs or {})
    call = _Call(model, tuple(args), dict(kwargs or {}), unroll)
    if aten:
        return _run(call, True, PythonState())
    before, state = Before(model), PythonState()
    try:
        return _run(call, False, state)
    except Again as again:
        where = again.where
    before.restore(state, where)
    return _run(call, True, PythonState())


@dataclass(frozen=True)
class _Call:
    """What is to be captured."""

    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    unroll: bool

    @cached_property
    def flat(self) -> tuple[list[Any], TreeSpec]:
        """The leaves of the arguments, and their structure."""
        return tree_flatten((self.args, self.kwargs))


def _run(call: _Call, aten: bool, state: PythonState) -> Captured:
    state.read(call.model, "")
    presented = Presented(call.flat[0], state.knows)
    try:
        return _record(call, aten, state, presented)
    finally:
        presented.restore()


def _record(call: _Call, aten: bool, state: PythonState, presented: Presented) -> Captured:
    model = call.model
    leaves, spec = call.flat
    names = _input_names(model, call.args, call.kwargs)
    run_leaves = list(map(presented.of, leaves))
    tensor_names = _unique_names(leaves, names)
    graph = fx.Graph()
    externals = Externals(names_of(model), tensor_names, presented)
    recorder = Recorder(externals, graph, UNROLLED if call.unroll else {}, aten)
    _refuse_old_hooks(model)
    refuse_hooks_around()
    _refuse_modes()
    run_args, run_kwargs = tree_unflatten(run_leaves, spec)
    stand_ins = presented.stand_ins()
    references = {id(tensor): sys.getrefcount(tensor) for tensor in stand_ins}
    paths = {id(module): name for name, module in model.named_modules()}
    try:
        with _undisturbed(externals), recorder.active(paths), state.watching():
            returned = [model(*run_args, **run_kwargs)]
    except Again:
        recorder.unflag()
        raise
    refuse_effects(state)
    refuse_shared_arrays(state, externals.memories())
    open_dataclasses(returned)
    returned.append(opened(returned.pop(), state.knows))
    refuse_kept_leaves(recorder, returned, references)
    kept = kept_tensors(recorder, returned)
    after, after_spec = tree_flatten((run_args, run_kwargs))
    if after_spec != spec or any(a is not b for a, b in zip(after, run_leaves, strict=True)):
        raise CaptureError("the model changes a container among its arguments", hint="let it return what it adds")
    outputs, held, changed, tensors = _finish(graph, recorder, returned.pop(), kept)
    # Looking at what a checkpoint saved would run it once more.
    stale = stale_values(tensors) if recorder.wrote and not recorder.tape.regions.seen else None
    admitted = [e.tensor for e in externals.admitted.values() if e.tensor is not None]
    noticed = [t for t in recorder.tape.noticed.values() if state.knows(t)]
    owned = list({id(t): t for t in (*model.parameters(), *model.buffers(), *admitted, *noticed)}.values())
    questions, once = _questions(graph, recorder)
    once += state.reasons
    once += [f"the model keeps a tensor that needs a gradient ({k.where})" for k in held]
    recorder.tape.values.clear()
    own = frozenset({storage_key(t) for t in owned} - {None})

    def holds_any(tensors: Sequence[torch.Tensor], memories: Iterable[int | None]) -> bool:
        return not (own.isdisjoint(memories) and state.knows_none(tensors))

    if holds_any(presented.callers, map(storage_key, presented.callers)):
        once.append("an argument is the model's, or shares memory with it")
    once += ["the run puts attributes on an argument"] if presented.marked() else []
    once += ["the run changes requires_grad of a tensor"] if recorder.flagged() else []
    presented.hand_back(model)
    once += [f"the run changes {what or 'the model'}" for what in state.changes()]
    hidden = [where for tensor, where in externals.unnamed if not state.knows(tensor)]
    once += [f"reads a tensor that pcgraph cannot name ({where})" for where in hidden]
    once += not_comparable(names, leaves)
    guards = Guards(state, owned, questions)
    if once:  # nobody will ask
        state.forget()
    return Captured(
        type(model).__name__,
        graph,
        dict(externals.admitted),
        outputs,
        held,
        changed,
        guards,
        tuple(dict.fromkeys(once)),
        stale,
        tuple(recorder.woken),
        aten,
        holds_any,
    )


_LATER = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, map, filter)


def _refuse_modes() -> None:
    modes: list[Any] = [mode for mode in _get_current_function_mode_stack() if not isinstance(mode, DeviceContext)]
    kind = "function" if modes else "dispatch"
    modes = modes or list(_get_current_dispatch_mode_stack())
    if modes:
        raise CaptureError(
            f"a torch {kind} mode is active around the call ({type(modes[0]).__name__})",
            hint="call the network outside of it, or the plain model inside: what a mode does to calls is not compiled",
        )


def _finish(
    graph: fx.Graph, recorder: Recorder, result: Any, kept: list[tuple[torch.Tensor, fx.Node, bool]]
) -> tuple[OutputSpec, tuple[Kept, ...], dict[str, int], list[torch.Tensor]]:
    leaves, tree = tree_flatten(result)
    places: dict[fx.Node, int] = {}  # a tensor that is returned twice is one output: its errors add up in the engine
    returned = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    described: list[tuple[int | None, Any]] = []
    attributes: dict[int, dict[str, Any]] = {}

    def place(tensor: torch.Tensor) -> int:
        node = recorder.tape.node(tensor, "the model's return value")
        return places.setdefault(node, len(places))

    for leaf in leaves:
        if isinstance(leaf, torch.Tensor):
            index = place(leaf)
            described.append((index, None))
            if marks(leaf) and id(leaf) not in recorder.externals.objects:  # those have theirs already
                attributes[index] = dict(marks(leaf))
                if not all(comparable(v) for v in marks(leaf).values()):
                    recorder.tape.look("a returned tensor has attributes which are made anew each time")
        else:
            described.append((None, leaf))
            if isinstance(leaf, _LATER):
                raise CaptureError(
                    f"the model returns a {type(leaf).__name__}: what it does happens later, where nobody records it",
                    hint="return a list, or compile the part that makes one item",
                )
            if not comparable(leaf):  # its tensors are found as kept ones
                recorder.tape.look(f"the model returns a {type(leaf).__name__}, which is made anew each time")

    changed = {name: place(tensor) for name, tensor in recorder.tape.changed.items()}
    held = []
    for tensor, made, _ in kept:
        external = recorder.externals.admitted.get(made.name)
        output = place(tensor) if external is None else None
        where = f"{made.meta.get('module_path') or ''} ({made.meta.get('source')})".strip()
        retain = "retain_grad" in recorder.held.get(id(tensor), (tensor, []))[1]
        held.append(Kept(tensor, output, external.input_index if external else None, retain, where))
    graph.output(tuple(places))
    left = [*returned, *(k.tensor for k in held), *recorder.tape.changed.values()]
    return OutputSpec(tree, tuple(described), attributes), tuple(held), changed, left


def _questions(graph: fx.Graph, recorder: Recorder) -> tuple[Questions | None, list[str]]:
    """What the run read and a later call can be asked; what it cannot be asked, in words."""
    looks = recorder.tape.looks
    asked = [question for _, question in looks if question is not None]
    try:
        questions = Questions(asked, recorder.externals.admitted) if asked else None
        reasons = [text for text, question in looks if question is None]
    except ValueError:
        questions, reasons = None, [text for text, _ in looks]
    for question in reversed(asked):
        if not question.node.meta["specs"]:  # Python's business, not the graph's
            graph.erase_node(question.node)
    return questions, reasons


@contextmanager
def _undisturbed(externals: Externals) -> Iterator[None]:
    """Put random state and outside memory back after the run; one in which the model raised has happened."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    raised = False
    try:
        yield
    except BaseException as error:
        raised = not isinstance(error, CaptureError | Again)
        raise
    finally:
        if not raised:
            torch.set_rng_state(cpu)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)
            externals.restore()


def _refuse_old_hooks(model: torch.nn.Module) -> None:
    if _module._global_is_full_backward_hook is False and _module._global_backward_hooks:
        raise CaptureError("global backward hooks of the old kind", hint="use register_module_full_backward_hook")
    for name, module in model.named_modules():
        if module._is_full_backward_hook is False and module._backward_hooks:
            raise CaptureError(
                f"module {name or type(module).__name__!r} has a backward hook of the old kind",
                hint="use register_full_backward_hook, or look at error nodes with `pcn.watch()`",
            )


def _input_names(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """A readable name for every leaf of the arguments, after the parameters of ``forward``."""
    forward: Callable[..., Any] = model.forward
    try:
        signature = [p for p in inspect.signature(forward).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    except (TypeError, ValueError):
        signature = []
    names = []
    try:
        leaves = tree_flatten_with_path((args, kwargs))[0]
    except ValueError:  # a container that can be flattened, but has no names for its parts
        return [f"input_{k}" for k in range(len(tree_leaves((args, kwargs))))]
    for path, _ in leaves:
        first = path[1]
        key = getattr(first, "key", None)
        index = getattr(first, "idx", None)
        if key is not None:
            name = str(key)
        elif (
            index is not None
            and index < len(signature)
            and signature[index].kind is not inspect.Parameter.VAR_POSITIONAL
        ):
            name = signature[index].name
        else:
            name = f"input_{index}"
        rest = [str(getattr(part, "key", getattr(part, "idx", ""))) for part in path[2:]]
        names.append("_".join([name, *rest]))
    return names


def _unique_names(leaves: list[Any], names: list[str]) -> list[str]:
    seen: set[int] = set()
    result = []
    for leaf, name in zip(leaves, names, strict=True):
        if isinstance(leaf, torch.Tensor) and id(leaf) not in seen:
            seen.add(id(leaf))
            result.append(name)
    return result
