"""Runs the model once, for real, and sees every call: torch's where it can, ATen's where torch's is out of sight.

Two observers stand on top of each other. `Recorder`, a torch function mode, sees each call as the user's code
made it (``F.conv2d``, ``x.view``): that is one vertex. `Observer` sees the ATen calls underneath, which tell
what the vertex wrote, drew or looked at. An ATen call that belongs to no such call (inside of ``vmap``, a script,
``autograd.grad``, or a function that is handed one of the user's) is a vertex itself. Autograd runs as usual, so
every tensor's ``requires_grad`` is true to the model, and whatever autograd refuses is refused here in its own words.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx
from torch.autograd.function import _SingleLevelFunction
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.hooks import BackwardHook

from ..errors import CaptureError
from .arguments import collect, to_fx
from .casts import autocast_device, casts, sequence_number
from .exposed import HANDS_OUT
from .externals import Externals
from .metadata import (
    asks_for_history,
    attribute_set,
    flags,
    is_metadata,
    refusal,
    refuse_fast_path,
    refuse_multi_grad_hook,
)
from .mutation import Autocast, CustomFunction, HookedModule, tensors_in
from .observer import Observer, refuse_dispatch_modes, storage_key
from .tape import Call, Tape, call_name


class Again(BaseException):  # not for the model to catch
    """The model differentiates, and has to run again: what autograd saves inside of torch's calls must be seen.

    Attributes:
        where: the line that asks for it.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Recorder(TorchFunctionMode):
    """Records the calls made while it is active.

    Args:
        externals: names the tensors that exist before the run, and puts them back afterwards.
        graph: the torch.fx graph to write.
        unroll: replacements for fused recurrent kernels, by the kernel's builtin.
        aten: record ATen calls only.

    Attributes:
        tape: what was recorded.
        wrote: some call wrote to an operand in place.
        woken: inputs that the model made require a gradient.
        held: values that got hooks, or whose gradient is to be retained, with the names of the calls.
    """

    def __init__(
        self,
        externals: Externals,
        graph: fx.Graph,
        unroll: dict[Callable[..., Any], Callable[..., Any]],
        aten: bool = False,
    ) -> None:
        super().__init__()
        self.externals = externals
        self.observer = Observer(self._before_write, externals.before_reshaping, self.call)
        self.tape = Tape(graph, externals, self.observer)
        self.held: dict[int, tuple[torch.Tensor, list[str]]] = {}
        self.wrote = False
        self.woken: list[int] = []
        self._flags: dict[int, tuple[torch.Tensor, bool]] = {}
        self._unroll, self._aten = unroll, aten
        self._profile: Any = None
        self._dispatch_modes = 0
        self._attach: Callable[[Any], None] | None = None

    def _before_write(self, key: int) -> None:
        self.externals.before_write(key)
        self.tape.consumed.before_write(key)

    # -- the mode ----------------------------------------------------------------------------
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.observer.inside:
            return func(*args, **kwargs)
        if is_metadata(func) and not (func is torch.Tensor.type and (len(args) > 1 or kwargs)):
            self.tape.notice(args)
            if args and asks_for_history(func, args[0]):
                args = (self._asked(args[0]), *args[1:])
            self.observer.inside = True
            try:
                return func(*args, **kwargs)
            finally:
                self.observer.inside = False
        # Whoever watches the user's Python has nothing to see in here, and it would cost most of the time.
        profile = self._profile = sys.getprofile()
        sys.setprofile(None)
        try:
            replacement = self._unroll.get(func) or _REWRITTEN.get(func)
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
        wanted = flags(func, args, kwargs)
        if wanted is not None:
            self._flag(args[0], wanted)
            return args[0] if func is torch.Tensor.requires_grad_ else None  # a setter returns nothing
        attribute = attribute_set(func)
        if attribute is not None and attribute not in _COMPUTED:
            self.tape.look(f"a tensor's .{attribute} is set")
        operands: list[torch.Tensor] = []
        collect(args, operands)
        collect(kwargs, operands)
        aten = isinstance(func, torch._ops.OpOverload)
        message = refusal(func, operands)
        if message is not None:
            raise CaptureError(message[0], where=self.tape.where(), hint=message[1])
        if not aten and self._is_open(func, args, kwargs, operands):
            return self._run_open(func, args, kwargs)
        if torch._C._len_torch_dispatch_stack() != self._dispatch_modes:
            refuse_dispatch_modes(self.observer, self.tape.where())
        tape, seen, name = self.tape, self.observer, call_name(func)
        seen.inside = True
        try:
            for value in kwargs.values():
                if isinstance(value, torch.Generator):
                    self.externals.keep_generator(value)
            nodes = {id(tensor): tape.node(tensor, name) for tensor in operands}
            before = [tensor.requires_grad for tensor in operands]
            device = None if aten else autocast_device()
            sequence = sequence_number() if device is not None and torch.is_grad_enabled() else None
            seen.begin()
            if aten:
                seen.note(func, args, kwargs)
            if type(func) is CustomFunction:
                tape.consumed.begin(operands)
            result = func(*args, **kwargs)
        except Exception as error:
            tape.look(f"{name}() raises a {type(error).__name__}, which the model may catch")
            raise
        finally:
            seen.inside = False
            tape.consumed.end()
        if name == "grad":
            tape.look("a tensor's .grad is read")
        if name in HANDS_OUT and operands:
            tape.exposed.add(operands[0])
        elif tape.exposed:
            tape.exposed.written(seen.writes | seen.hidden_writes)
        results = tensors_in(result) if not isinstance(result, torch.Tensor) else [result]
        written = self._written(operands, kwargs) if seen.writes or seen.hidden_writes else None
        self.wrote = self.wrote or bool(seen.writes)
        if name == "detach_" and before[0]:
            tape.cut_off(operands[0], nodes[id(operands[0])])
        identity = bool(results) and all(id(tensor) in nodes for tensor in results)
        if written is None and identity and not seen.random:
            return result  # dropout in eval mode, contiguous() of a contiguous tensor
        if sequence is not None:
            for cast in casts(results, operands, sequence):
                nodes[id(cast.weight)] = tape.cast(cast, nodes[id(cast.weight)], str(device))
        args, kwargs = to_fx(args, nodes), to_fx(kwargs, nodes)
        if device is not None:
            func = Autocast(func, device, torch.get_autocast_dtype(device), name)
        differentiates = torch.is_grad_enabled() and any(before)
        call = Call(func, name, args, kwargs, operands, nodes, before, result, results, written, aten, differentiates)
        if written is None and not results:
            if operands and result is not None:
                tape.read(f"{name}() reads a tensor's value", call)
            return result
        tape.record(call)
        dynamic = seen.dynamic and (aten or name not in _DYNAMIC_INSIDE)
        if seen.looked or dynamic:
            what = "has a shape that depends on data" if dynamic else "reads a tensor's value"
            tape.read_inside(f"{name}() {what}", call)
        return result

    def _is_open(self, func: Any, args: Any, kwargs: Any, operands: list[torch.Tensor]) -> bool:
        """Whether a call is looked into: its ATen calls are recorded instead of the call itself."""
        if isinstance(func, CustomFunction):
            return False
        if func is torch.autograd.grad and not self._aten:
            raise Again(self.tape.where())
        if self._aten or any(map(torch._C._functorch.is_functorch_wrapped_tensor, operands)):
            return True
        # Parameters hidden in a callable argument would get no gradient.
        given = (torch.nn.Module, types.FunctionType, types.MethodType)
        return any(isinstance(value, given) for value in (*args, *kwargs.values()))

    def _run_open(self, func: Any, args: Any, kwargs: Any) -> Any:
        sys.setprofile(self._profile)  # the user's code may run in there
        try:
            return func(*args, **kwargs)
        finally:
            sys.setprofile(None)

    def _checkpointed(self, function: Any, keeps_random_state: bool, *args: Any) -> Any:
        """A reentrant checkpoint's function, recorded like any other; it learns if an argument needs a gradient."""
        learns = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors_in(args))
        with torch.set_grad_enabled(learns), self.tape.regions.inside(keeps_random_state):
            return function(*args)

    def _asked(self, tensor: torch.Tensor) -> torch.Tensor:
        """The caller's own tensor behind an input, of which something is asked that no signature says."""
        index = self.externals.input_index(tensor) if isinstance(tensor, torch.Tensor) else None
        if index is None:
            return tensor
        self.tape.look("the model asks where an input comes from, who hooked it, or where it lies")
        return self.externals.callers[index]

    def _hold(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Remember a tensor whose gradient somebody asks for; of one from outside it is the engine's business."""
        tensor, tape = args[0], self.tape
        refuse_multi_grad_hook(tape.where())
        tape.look(f"{call_name(func)}() is called on a tensor")
        node = tape.node(tensor, call_name(func))
        external = self.externals.admitted.get(node.name)
        if external is not None and self.externals.is_itself(external, tensor):
            return func(*args, **kwargs)
        self.held.setdefault(id(tensor), (tensor, []))[1].append(call_name(func))
        return None if func is torch.Tensor.retain_grad else func(*args, **kwargs)

    def _flag(self, tensor: torch.Tensor, wanted: bool) -> None:
        """The model sets ``requires_grad`` of a tensor to something else."""
        tape = self.tape
        self.observer.inside = True
        try:
            if tape.values.knows(tensor) and id(tensor) not in self.externals.objects:
                if wanted:
                    tape.make_leaf(tensor)
                else:
                    tensor.requires_grad_(False)
            elif not wanted:
                if self.externals.input_index(tensor) in self.woken:
                    raise self._too_late()
                self._flags.setdefault(id(tensor), (tensor, True))
                tape.freeze(tensor)
            elif not tape.thaw(tensor):
                if tape.values.knows(tensor):
                    raise self._too_late()
                self._wake(tensor)
        finally:
            self.observer.inside = False

    def _wake(self, tensor: torch.Tensor) -> None:
        """As the model would have it: the caller's own tensor requires a gradient, from now on."""
        index = self.externals.input_index(tensor)
        if index is not None:
            self.woken.append(index)
            self.externals.callers[index].requires_grad_()
        else:
            self._flags.setdefault(id(tensor), (tensor, False))
        tensor.requires_grad_()

    def flagged(self) -> bool:
        """Whether some outside tensor was left with another ``requires_grad`` than it had."""
        return any(tensor.requires_grad != before for tensor, before in self._flags.values())

    def unflag(self) -> None:
        """Put every ``requires_grad`` back that the run has changed."""
        for tensor, before in self._flags.values():
            tensor.requires_grad_(before)
        for index in self.woken:
            self.externals.callers[index].requires_grad_(False)

    def _too_late(self) -> CaptureError:
        return CaptureError(
            "the model changes requires_grad of a tensor after using it",
            where=self.tape.where(),
            hint="set it before the tensor is used, or before the call",
        )

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

    # -- what the mode cannot see --------------------------------------------------------------
    @contextmanager
    def active(self, module_names: dict[int, str]) -> Iterator[None]:
        """Record: function mode, ATen observer, custom autograd functions, module paths."""
        thread = threading.get_ident()
        modules = self.tape.modules

        def enter(module: torch.nn.Module, args: Any) -> None:
            if threading.get_ident() == thread:
                refuse_fast_path(module, args)
                modules.append(module_names.get(id(module), type(module).__name__))

        def leave(module: torch.nn.Module, _: Any, __: Any) -> None:
            if modules and threading.get_ident() == thread:
                modules.pop()

        recorder = self

        def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
            # The user may have stored `MyFunction.apply` long ago; every path leads through this class.
            native = _FUNCTION_APPLY.__get__(None, cls)
            wrapped = any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors_in(args)))
            if recorder.observer.inside or kwargs or wrapped or threading.get_ident() != thread:
                return native(*args, **kwargs)
            if cls is CheckpointFunction:
                return recorder._checkpointed(*args)
            with torch._C.DisableTorchFunction():
                attach, recorder._attach = recorder._attach, None
                if attach is not None:
                    return recorder.call(HookedModule(cls, attach), args, {})
                recorder.tape.look_behind(cls, args)
                return recorder.call(CustomFunction(cls), args, {})

        def around_module(hook: BackwardHook, attach: Any, args: Any) -> Any:
            if threading.get_ident() != thread:
                return _APPLY_ON_TENSORS(hook, attach, args)
            recorder._attach = attach  # for the function that the next line calls
            try:
                return _APPLY_ON_TENSORS(hook, attach, args)
            finally:
                recorder._attach = None

        handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
        patched = _patched_class()
        before = patched.__dict__.get("apply")
        patched.apply = classmethod(apply)
        BackwardHook._apply_on_tensors = around_module  # type: ignore[method-assign]
        try:
            with self, self.observer, self.tape.regions.watching():
                self._dispatch_modes = torch._C._len_torch_dispatch_stack()
                yield
            self.tape.settle()
            self.tape.exposed.check(self.externals.memories().keys(), "between two calls of torch")
            self.tape.exposed.close()
        except RuntimeError as error:
            if self.observer.refused is not None:  # TorchScript's interpreter puts its own in place of ours
                raise self.observer.refused from error
            raise
        finally:
            BackwardHook._apply_on_tensors = _APPLY_ON_TENSORS  # type: ignore[method-assign]
            if before is None:
                del patched.apply
            else:
                patched.apply = before
            for handle in handles:
                handle.remove()


def _split(tensor: torch.Tensor, places: Any = None, *args: Any, **kwargs: Any) -> Any:
    """``tensor_split`` at places that a tensor holds: it reads them as well, but out of sight."""
    places = kwargs.pop("tensor_indices_or_sections", places)
    if not isinstance(places, torch.Tensor):
        return NotImplemented
    return torch.tensor_split(tensor, places.tolist(), *args, **kwargs)


def _pack(_: torch.Tensor, lengths: torch.Tensor, *args: Any) -> Any:
    """Packing reads the lengths: they decide on the shapes of what it returns."""
    lengths.tolist()
    return NotImplemented


_REWRITTEN: dict[Any, Callable[..., Any]] = {
    torch.tensor_split: _split,
    torch.Tensor.tensor_split: _split,
    torch._VF._pack_padded_sequence: _pack,
}
_COMPUTED = {"real", "imag", "data"}  # attributes that are set by a call that is recorded, or refused
_DYNAMIC_INSIDE = {"ctc_loss", "_pack_padded_sequence"}  # what depends on data never leaves them, or is read before
_ASKS_FOR_GRADIENT = {torch.Tensor.register_hook, torch.Tensor.retain_grad}
_APPLY_ON_TENSORS = BackwardHook._apply_on_tensors
_FUNCTION_APPLY = torch._C._FunctionBase.__dict__["apply"]


def _patched_class() -> Any:
    """The class whose `apply` every custom function goes through.

    Up to torch 2.13 ``Function.apply`` is Python and calls its base class's, so that an `apply` that the user stored
    long ago is seen as well. From 2.14 on it is C: one that was stored bypasses the class, and is refused when its
    result is used.
    """
    direct = torch.autograd.Function.__dict__.get("apply")
    return torch.autograd.Function if direct is _FUNCTION_APPLY else _SingleLevelFunction
