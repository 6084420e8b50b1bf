"""`Facade`: a module that stands before another one. What is set, registered or asked of it goes to that module."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import torch

from ..errors import PCGraphError

# The module's own tables, by identity. Hooks on its state are among them: state_dict() is the module's.
_SHARED = (
    "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_state_dict_hooks", "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
# Hooks on a call are those of whom they were registered on.
_HOOKS = (
    "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs",
)  # fmt: skip
_SETTABLE = frozenset({"training", "forward", "_compiled_call_impl", *_HOOKS})
_OWN = frozenset({
    "module", "_front", "_options", "_programs", "_signatures", "_latest", "_watching", "_errors", "_objectives",
    "_counts",
})  # fmt: skip


class Facade(torch.nn.Module):
    """Shares the parameters, buffers, submodules and mode of `module`.

    Its own are hooks on its calls, and a ``forward`` that somebody sets: most of those call the one before.
    """

    module: torch.nn.Module

    def __init__(self, module: torch.nn.Module) -> None:
        own = self.__dict__
        own["module"] = module
        super().__init__()
        for name in _SHARED:
            own[name] = module.__dict__[name]

    @property
    def training(self) -> bool:
        """The module's mode."""
        return self.module.training

    @training.setter
    def training(self, mode: bool) -> None:
        if self._ready():
            self.module.training = mode

    def train(self, mode: bool = True) -> Any:
        """Set the module's mode."""
        self.module.train(mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's state, with the module's keys."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the module's state."""
        return self.module.load_state_dict(*args, **kwargs)

    def apply(self, fn: Callable[[torch.nn.Module], None]) -> Any:
        """Apply a function to the module and its submodules, e.g. to initialise them."""
        self.module.apply(fn)
        return self

    def register_backward_hook(self, hook: Any) -> NoReturn:
        """Refused: hooks of the old kind see the gradients of one operation, and a network is none."""
        raise PCGraphError("backward hooks of the old kind", hint="use register_full_backward_hook, or `pcn.watch()`")

    def __prepare_scriptable__(self) -> NoReturn:
        raise PCGraphError("a network cannot be scripted", hint="script the plain model: torch.jit.script(pcn.module)")

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise PCGraphError(
            "DataParallel cannot make replicas of a network", hint="use torch.nn.parallel.DistributedDataParallel"
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.module._load_from_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        self.module._apply(fn, recurse)
        return self

    def _own_state(self) -> dict[str, Any]:
        """What belongs to the facade and goes along with copies: hooks on its calls, and a replaced ``forward``."""
        return {name: self.__dict__[name] for name in (*_HOOKS, "forward") if name in self.__dict__}

    def _hooked(self) -> bool:
        """Whether a call of the facade does more than a call of the module."""
        own = self.__dict__
        return "forward" in own or any(own[name] for name in _HOOKS if name != "_is_full_backward_hook")

    def _call_impl(self, *args: Any, **kwargs: Any) -> Any:
        # Hooks on all modules fire where the module is called, not once more for what stands before it.
        return super()._call_impl(*args, **kwargs) if self._hooked() else self.forward(*args, **kwargs)

    def _ready(self) -> bool:
        """Not while nn.Module initialises."""
        return "_counts" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in _OWN or name.startswith("__"):
                raise
            own = getattr(type(self), name, None)
            if isinstance(own, property):  # it was asked first, and has no value yet
                return own.__get__(self)
            return getattr(self.module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "__class__":  # register_parametrization does it, and would change the class of all networks
            raise PCGraphError("the class of a network cannot be changed", hint="change the plain model, `pcn.module`")
        if name in _SETTABLE or not self._ready():
            object.__setattr__(self, name, value)
        else:
            setattr(self.module, name, value)
            if name in _SHARED:
                self.__dict__[name] = value

    def __delattr__(self, name: str) -> None:
        if name in _SETTABLE:
            object.__delattr__(self, name)
        else:
            delattr(self.module, name)

    def __repr__(self) -> str:
        return f"PCNetwork(\n  {repr(self.module).replace(chr(10), chr(10) + '  ')}\n)"


F = TypeVar("F", bound=Facade)
_classes: WeakKeyDictionary[type, dict[type, type]] = WeakKeyDictionary()
_KEPT = frozenset(
    "init new call getattr setattr delattr getattribute reduce reduce_ex getstate setstate copy deepcopy repr dir del "
    "eq hash init_subclass class_getitem prepare_scriptable".split()
)  # special methods that are the facade's


def class_for(module: torch.nn.Module, base: type[F]) -> type[F]:
    """`base` for a module of this class: with what that adds to nn.Module's protocol, and its ``forward``'s signature.

    That is special methods, and methods that it overrides. Trainers read from the signature which columns of a data
    set a model wants.
    """
    cls = type(module)
    made = _classes.setdefault(cls, {})
    if base not in made:
        theirs = {name for part in cls.__mro__ if part not in torch.nn.Module.__mro__ for name in vars(part)}
        ours = {name for part in base.__mro__ if part not in torch.nn.Module.__mro__ for name in vars(part)}
        methods: dict[str, Any] = {name: _forwarded(name) for name in theirs - ours if _is_protocol(cls, name)}
        about = {"__module__": base.__module__, "__doc__": base.__doc__, "forward": _forward(cls, base)}
        made[base] = type(base.__name__, (base,), {**about, **methods})
    return made[base]


def _forward(cls: type[torch.nn.Module], base: type[Facade]) -> Any:
    """The facade's own ``forward``, with the signature of the module's."""
    own: Any = base.forward
    forward: Any = types.FunctionType(own.__code__, own.__globals__, own.__name__, own.__defaults__, own.__closure__)
    forward.__dict__.update(own.__dict__)
    forward.__kwdefaults__, forward.__doc__, forward.__qualname__ = own.__kwdefaults__, own.__doc__, own.__qualname__
    try:
        forward.__signature__ = inspect.signature(cls.forward)
    except (TypeError, ValueError):  # nothing that has one
        return own
    return forward


def _is_protocol(cls: type, name: str) -> bool:
    if not isinstance(inspect.getattr_static(cls, name), types.FunctionType):
        return False
    if name.startswith("__") and name.endswith("__"):
        return name[2:-2] not in _KEPT
    return hasattr(torch.nn.Module, name) and not name.startswith(("_", "register_"))


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: Facade, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self.module, name)(*args, **kwargs)
        return self if result is self.module else result

    method.__name__ = name
    return method
