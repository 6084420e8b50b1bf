"""The run-time tape: runs the model once, for real, and writes down every torch-level call as a torch.fx node.

Two observers stand on top of each other. `Recorder`, a torch function mode, sees each call as the user's code
made it (``F.conv2d``, ``x.view``): that is one vertex. `Observer` sees the ATen calls underneath, which tell
what the vertex wrote, drew or looked at. Autograd runs as usual, so every tensor's ``requires_grad`` is true
to the model, and whatever autograd refuses is refused here in its own words.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.autograd.function import _SingleLevelFunction
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from ..errors import CaptureError
from ..graph.vertex import Source, TensorSpec
from .arguments import collect, position, replaced, to_fx
from .casts import Cast, autocast_device, casts, sequence_number
from .externals import Externals
from .metadata import is_metadata, refusal
from .mutation import Autocast, CustomFunction, Flattened, Geometry, InPlace, tensors_in
from .observer import Observer, storage_key
from .values import Value, Values

_INTERNAL = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep)
_internal_file: dict[str, bool] = {}


def is_internal(filename: str) -> bool:
    """Whether a source file belongs to torch or to pcgraph, not to the user."""
    known = _internal_file.get(filename)
    if known is None:
        known = _internal_file[filename] = filename.startswith((*_INTERNAL, "<frozen", "<pcgraph"))
    return known


def user_source() -> Source | None:
    """The innermost line of the call stack that is the user's."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not is_internal(code.co_filename):
            return Source(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None


class Recorder(TorchFunctionMode):
    """Records the calls made while it is active.

    Args:
        externals: names the tensors that exist before the run, and puts them back afterwards.
        unroll: replacements for fused recurrent kernels, by the kernel's builtin.

    Attributes:
        graph: the torch.fx graph, in single assignment form.
        wrote: some call wrote to an operand in place.
        changed: tensors from outside into which values that need a gradient were written, by node.
        held: values that got hooks, or whose gradient is to be retained, with the names of the calls.
        looks: why this graph may be valid for this call only: lines where Python read a value.
    """

    def __init__(
        self, externals: Externals, graph: fx.Graph, unroll: dict[Callable[..., Any], Callable[..., Any]]
    ) -> None:
        super().__init__()
        self.graph = graph
        self.values = Values(graph)
        self.externals = externals
        self.observer = Observer(externals.before_write)
        self.looks: list[str] = []
        self._unroll = unroll
        self.wrote = False
        self._busy = False
        self._modules: list[str] = []
        self._casts: dict[Any, fx.Node] = {}
        self.changed: dict[str, torch.Tensor] = {}
        self.held: dict[int, tuple[torch.Tensor, list[str]]] = {}

    # -- the mode ----------------------------------------------------------------------------
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._busy or is_metadata(func):
            return func(*args, **kwargs)
        # Whoever watches the user's Python has nothing to see in here, and it would cost most of the time.
        profile = sys.getprofile()
        sys.setprofile(None)
        try:
            replacement = self._unroll.get(func)
            if replacement is not None:
                with self:
                    result = replacement(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            return self.call(func, args, kwargs)
        finally:
            sys.setprofile(profile)

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one call for real and record it."""
        if func in _ASKS_FOR_GRADIENT and args[0].requires_grad:
            return self._hold(func, args, kwargs)
        operands: list[torch.Tensor] = []
        collect(args, operands)
        collect(kwargs, operands)
        message = refusal(func, operands) or self._refuse_hidden(func, args, kwargs)
        if message is not None:
            raise CaptureError(message[0], where=self._where(), hint=message[1])
        for value in kwargs.values():
            if isinstance(value, torch.Generator):
                self.externals.keep_generator(value)
        for tensor in operands:
            if not self.values.knows(tensor):
                self._external(tensor, func)
        nodes = {id(tensor): self._node(tensor) for tensor in operands}
        before = [tensor.requires_grad for tensor in operands]
        seen = self.observer
        device = autocast_device()
        sequence = sequence_number() if device is not None and torch.is_grad_enabled() else None
        seen.begin()
        self._busy = seen.inside = True
        try:
            result = func(*args, **kwargs)
        finally:
            self._busy = seen.inside = False
        results = tensors_in(result) if not isinstance(result, torch.Tensor) else [result]
        written = self._written(operands, kwargs) if seen.writes or seen.hidden_writes else None
        self.wrote = self.wrote or bool(seen.writes)
        if written is None:
            if not results:
                if operands and (result is not None or _name(func) == "grad"):
                    self._look(f"{_name(func)}() reads a tensor's value")
                return result
            if all(id(tensor) in nodes for tensor in results) and not seen.random:
                return result  # the identity: dropout in eval mode, contiguous() of a contiguous tensor
        if seen.looked:
            self._look(f"{_name(func)}() reads a tensor's value")
        if seen.dynamic:
            self._look(f"{_name(func)}() has a shape that depends on data")
        if sequence is not None:
            for cast in casts(results, operands, sequence):
                nodes[id(cast.weight)] = self._cast_node(cast, nodes[id(cast.weight)], str(device))
        args, kwargs = to_fx(args, nodes), to_fx(kwargs, nodes)
        if device is not None:
            func = Autocast(func, device, torch.get_autocast_dtype(device), _name(func))
        self._record(func, args, kwargs, operands, nodes, before, result, results, written)
        return result

    @staticmethod
    def _refuse_hidden(func: Any, args: Any, kwargs: Any) -> tuple[str, str] | None:
        """Parameters hidden in a callable argument would get no gradient."""
        if isinstance(func, CustomFunction):
            return None
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.nn.Module | types.FunctionType | types.MethodType):
                return (
                    f"{_name(func)} is given a function of the user's, whose operations stay unseen",
                    "call it outside",
                )
        return None

    def _cast_node(self, cast: Cast, weight: fx.Node, device: str) -> fx.Node:
        """The vertex of a weight's cast copy, shared by all calls that autocast let share it."""
        if cast.node not in self._casts:
            dtype = torch.get_autocast_dtype(device)
            node = self.graph.call_method("to", (weight, dtype))
            spec = TensorSpec.of(cast.weight)
            self._annotate(node, (replace(spec, dtype=dtype),), False)
            self._casts[cast.node] = node
        return self._casts[cast.node]

    # -- recording ---------------------------------------------------------------------------
    def _record(
        self,
        func: Callable[..., Any],
        args: Any,
        kwargs: Any,
        operands: list[torch.Tensor],
        nodes: dict[int, fx.Node],
        before: list[bool],
        result: Any,
        results: list[torch.Tensor],
        written: torch.Tensor | None,
    ) -> None:
        seen, name, target = self.observer, _name(func), func
        if seen.view_changed and written is not None:
            functional = getattr(torch.Tensor, name.removesuffix("_"), None)
            if functional is None:
                raise CaptureError(
                    f"{name} re-shapes a tensor in place in a way pcgraph cannot follow", where=self._where()
                )
            node = self._node_for(functional, args, kwargs, [written], False)
            self.values.rebind_shape(written, Value(node, None))
            return
        if written is not None and not self._is_state(written):
            self._record_write(target, name, args, kwargs, operands, nodes, before, written)
            if any(id(tensor) not in nodes for tensor in results):
                raise CaptureError(
                    f"{name} writes in place and returns new tensors as well",
                    where=self._where(),
                    hint="split the call",
                )
            return
        single = isinstance(result, torch.Tensor)
        flat = single or (isinstance(result, tuple | list) and all(isinstance(item, torch.Tensor) for item in result))
        if not flat:
            target = Flattened(target, name)
        node = self._node_for(target, args, kwargs, results, not single)
        # State outside of the graph is written for real, at the same place in the order of calls.
        node.meta["written"] = [nodes[id(t)] for t in operands if storage_key(t) in seen.writes | seen.hidden_writes]
        if written is not None and not torch.is_grad_enabled():
            node.meta["specs"] = tuple(replace(spec, requires_grad=False) for spec in node.meta["specs"])
        for index, tensor in enumerate(results):
            if id(tensor) not in nodes and not self.values.knows(tensor):
                self.values.bind(tensor, Value(node, None if single else index))

    def _record_write(
        self,
        target: Callable[..., Any],
        name: str,
        args: Any,
        kwargs: Any,
        operands: list[torch.Tensor],
        nodes: dict[int, fx.Node],
        before: list[bool],
        written: torch.Tensor,
    ) -> None:
        memory = self.values.memory_of(written)
        base, geometry, spec = memory.base, memory.geometry, memory.spec
        was = dict(zip(map(id, operands), before, strict=True))
        if base.node.op in ("placeholder", "get_attr"):
            self.changed[base.node.name] = memory.tensor
        unseen = not torch.is_grad_enabled() or not (was[id(written)] or written.requires_grad)
        if spec.requires_grad and unseen:
            raise CaptureError(
                f"{name} changes the data of a value that needs a gradient behind autograd's back",
                where=self._where(),
                hint="change the value itself, with gradients enabled, or change a clone of it",
            )
        if written.dtype != spec.dtype:
            raise CaptureError(
                f"{name} writes through a view of another dtype", where=self._where(), hint="clone() first"
            )
        here = Geometry.of(written)
        region = None if here == geometry else (here.size, here.stride, here.offset - geometry.offset)
        place = position(args, kwargs, nodes[id(written)])
        whole = nodes[id(written)] if region is None else self.values.node(base)
        args, kwargs = replaced(args, kwargs, place, whole)
        functional = InPlace(target, place, region, name)
        after = replace(spec, requires_grad=spec.requires_grad or written.requires_grad)
        node = self._node_for(functional, args, kwargs, [written], False)
        node.meta["specs"] = (after,)
        self.values.write(written, Value(node, None), after)

    def _is_state(self, tensor: torch.Tensor) -> bool:
        """Memory from outside of the run, written without a gradient (a parameter only under `no_grad`)."""
        memory = self.values.memory_of(tensor)
        outside = memory.base.node.op in ("placeholder", "get_attr")
        return outside and (not tensor.requires_grad or (memory.tensor.is_leaf and tensor.is_leaf))

    def _node_for(self, target: Any, args: Any, kwargs: Any, specs: list[torch.Tensor], multi: bool) -> fx.Node:
        if isinstance(target, types.MethodDescriptorType) and getattr(torch.Tensor, _name(target), None) is target:
            node = self.graph.call_method(_name(target), args, kwargs)
        elif isinstance(target, types.MethodWrapperType) and target.__name__ == "__get__":
            node = self.graph.call_function(getattr, (*args[:1], _name(target)))
        else:
            node = self.graph.call_function(target, args, kwargs)
        self._annotate(node, tuple(TensorSpec.of(tensor) for tensor in specs), multi)
        node.meta["random"] = self.observer.random
        return node

    def _annotate(self, node: fx.Node, specs: tuple[TensorSpec, ...], multi: bool) -> None:
        node.meta["specs"] = specs
        node.meta["multi"] = multi
        node.meta["module_path"] = self._modules[-1] if self._modules else ""
        node.meta["source"] = user_source()

    # -- operands ----------------------------------------------------------------------------
    def _node(self, tensor: torch.Tensor) -> fx.Node:
        value, fresh = self.values.current(tensor)
        if fresh:
            self._annotate(value.node, (TensorSpec.of(tensor),), False)
        elif tensor.requires_grad and not value.node.meta["specs"][value.output or 0].requires_grad:
            made = tensor.grad_fn.name() if tensor.grad_fn is not None else "requires_grad"
            raise CaptureError(
                f"a tensor came to need a gradient by something that was not seen ({made})",
                where=self._where(),
                hint="call a custom autograd function as MyFunction.apply(...), not through a stored apply",
            )
        return self.values.node(value)

    def _hold(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Remember a tensor whose gradient somebody asks for; a parameter's is the engine's business, as always."""
        tensor = args[0]
        self._look(f"{_name(func)}() is called on a tensor")
        if not self.values.knows(tensor):
            self._external(tensor, func)
        node = self.values.current(tensor)[0].node
        if node.op in ("placeholder", "get_attr") and self.externals.admitted[node.name].input_index is None:
            return func(*args, **kwargs)
        self.held.setdefault(id(tensor), (tensor, []))[1].append(_name(func))
        return None if func is torch.Tensor.retain_grad else func(*args, **kwargs)

    def _external(self, tensor: torch.Tensor, func: Any) -> None:
        node = self.externals.admit(tensor, self.graph, f"{_name(func)} at {self._where()}")
        self.values.bind(tensor, Value(node, None))

    def _written(self, operands: list[torch.Tensor], kwargs: dict[str, Any]) -> torch.Tensor | None:
        """The operand that was changed in place with a version bump, if any."""
        writes = self.observer.writes
        if not writes:
            return None
        candidates = tensors_in(kwargs.get("out")) + operands
        for tensor in candidates:
            if storage_key(tensor) in writes:
                return tensor
        return None

    def output(self, tensor: torch.Tensor) -> fx.Node:
        """The node of a tensor that the model returned."""
        if not self.values.knows(tensor):
            node = self.externals.admit(tensor, self.graph, "the model's return value")
            self.values.bind(tensor, Value(node, None))
        return self._node(tensor)

    def _look(self, what: str) -> None:
        self.looks.append(f"{what} ({self._where()})")

    def _where(self) -> str:
        path = self._modules[-1] if self._modules else ""
        source = user_source()
        return f"{path} ({source})" if path else str(source)

    # -- what the mode cannot see --------------------------------------------------------------
    @contextmanager
    def active(self, module_names: dict[int, str]) -> Iterator[None]:
        """Record: function mode, ATen observer, custom autograd functions, module paths."""
        thread = threading.get_ident()

        def enter(module: torch.nn.Module, _: Any) -> None:
            if threading.get_ident() == thread:
                self._modules.append(module_names.get(id(module), type(module).__name__))

        def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
            if self._modules and threading.get_ident() == thread:
                self._modules.pop()

        recorder = self

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            # The user may have stored `MyFunction.apply` long ago; every path leads through this class.
            native = _FUNCTION_APPLY.__get__(None, cls)
            if recorder._busy or kwargs or threading.get_ident() != thread:
                return native(*args, **kwargs)
            with torch._C.DisableTorchFunction():
                return recorder.call(CustomFunction(cls), args, {})

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
        patched = _patched_class()
        before = patched.__dict__.get("apply")
        patched.apply = classmethod(apply)
        try:
            with self, self.observer:
                yield
        finally:
            if before is None:
                del patched.apply
            else:
                patched.apply = before
            for handle in handles:
                handle.remove()


_ASKS_FOR_GRADIENT = {torch.Tensor.register_hook, torch.Tensor.retain_grad}
_FUNCTION_APPLY = torch._C._FunctionBase.__dict__["apply"]


def _patched_class() -> Any:
    """The class whose `apply` every custom function goes through.

    Up to torch 2.13 ``Function.apply`` is Python and calls its base class's, so that an `apply` that the user stored
    long ago is seen as well. From 2.14 on it is C: one that was stored bypasses the class, and is refused when its
    result is used.
    """
    direct = torch.autograd.Function.__dict__.get("apply")
    return torch.autograd.Function if direct is _FUNCTION_APPLY else _SingleLevelFunction


def _name(func: Any) -> str:
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name)
