"""In-place operations as functions: the graph is in single assignment form, so a write yields a new value.

The kernels and autograd formulas stay those of the in-place operation, run on a copy: ``elu_`` and ``elu``
have different derivatives to the bit. Only where both are known to agree is the out-of-place form used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

_T = torch.Tensor

# In-place operations whose out-of-place form has the same kernel and the same derivative, bit for bit.
_SAME: dict[Any, Callable[..., Any]] = {
    _T.relu_: _T.relu,
    torch.relu_: torch.relu,
    _T.add_: _T.add,
    _T.sub_: _T.sub,
    _T.mul_: _T.mul,
    _T.__iadd__: _T.add,
    _T.__isub__: _T.sub,
    _T.__imul__: _T.mul,
}
_SAME_FLAG = {F.relu, F.dropout}  # functions with an `inplace` flag of which the same holds


def dense_copy(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with exactly the same strides (kernels round differently on other strides)."""
    copy = tensor.clone()
    if copy.stride() != tensor.stride():
        copy = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
        copy.copy_(tensor)
    return copy


class _Named:
    """Gives callable objects the names that torch.fx prints."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__ = __name__


class InPlace(_Named):
    """``value -> value after func(value, ...)``, for a write to a whole value.

    Args:
        func: the in-place callable.
        position: which positional argument it writes; or the name of a keyword argument (``out``).
        region: ``(size, stride, offset)`` when only a view of the value is written.
    """

    def __init__(
        self, func: Callable[..., Any], position: int | str, region: tuple[Any, Any, int] | None, name: str
    ) -> None:
        super().__init__(name)
        self.func, self.position, self.region = func, position, region

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        return (InPlace, self.func, self.position, self.region)

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        value = args[self.position] if isinstance(self.position, int) else kwargs[self.position]
        if self.region is None:
            result = self._out_of_place(value, args, kwargs)
            if result is not None:
                return result
        copy = dense_copy(value)
        target = copy
        if self.region is not None:
            size, stride, offset = self.region
            target = copy.as_strided(size, stride, copy.storage_offset() + offset)
        if isinstance(self.position, int):
            args = (*args[: self.position], target, *args[self.position + 1 :])
        else:
            kwargs = {**kwargs, self.position: target}
        self.func(*args, **kwargs)
        return copy

    def _out_of_place(self, value: torch.Tensor, args: Any, kwargs: Any) -> torch.Tensor | None:
        if self.position != 0:
            return None
        result = None
        if self.func in _SAME_FLAG:
            if "inplace" in kwargs:
                result = self.func(*args, **{**kwargs, "inplace": False})
        elif self.func in _SAME:
            result = _SAME[self.func](*args, **kwargs)
        if result is None or result.dtype != value.dtype or result.stride() != value.stride():
            return None
        return result if result.shape == value.shape else None


class View(_Named):
    """Re-reads an older view of memory that was written through another view."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
        super().__init__("view_again")
        self.size, self.stride, self.offset = size, stride, offset

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        return (View, self.size, self.stride, self.offset)

    def __call__(self, base: torch.Tensor) -> torch.Tensor:
        return base.as_strided(self.size, self.stride, base.storage_offset() + self.offset)


class Flattened(_Named):
    """A callable whose nested result is returned as one flat tuple of its tensors."""

    def __init__(self, func: Callable[..., Any], name: str) -> None:
        super().__init__(name)
        self.func = func

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        return (Flattened, self.func)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(tensors_in(self.func(*args, **kwargs)))


class CustomFunction(_Named):
    """A user's ``torch.autograd.Function``: its own backward is used, never seen through."""

    def __init__(self, cls: type[torch.autograd.Function]) -> None:
        super().__init__(cls.__name__)
        self.cls = cls

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        return (CustomFunction, self.cls)

    def __call__(self, *args: Any) -> Any:
        return self.cls.apply(*args)


class Consuming(_Named):
    """A custom function that writes to an operand and returns other tensors: it runs on a copy of the operand."""

    def __init__(self, func: Callable[..., Any], position: int, name: str) -> None:
        super().__init__(name)
        self.func, self.position = func, position

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        return (Consuming, self.func.key() if hasattr(self.func, "key") else self.func, self.position)

    def __call__(self, *args: Any) -> Any:
        return self.func(*args[: self.position], dense_copy(args[self.position]), *args[self.position + 1 :])


class HookedModule(CustomFunction):
    """The identity that torch puts before and behind a module with full backward hooks.

    Args:
        cls: torch's function for it.
        attach: puts the module's hooks on a node of autograd's graph; done for every evaluation's own node.
    """

    def __init__(self, cls: type[torch.autograd.Function], attach: Callable[[Any], None]) -> None:
        super().__init__(cls)
        self.attach = attach

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        return (HookedModule, self.attach)

    def __call__(self, *args: Any) -> Any:
        results = self.cls.apply(*args)
        made = [
            r.grad_fn for r in results if r.grad_fn is not None and r.grad_fn.name() == f"{self.cls.__name__}Backward"
        ]
        if made:
            self.attach(made[0])
        return results


class Autocast(_Named):
    """Runs a call under the autocast setting that it was captured under (its casts become part of it)."""

    def __init__(self, func: Callable[..., Any], device: str, dtype: torch.dtype, name: str) -> None:
        super().__init__(name)
        self.func, self.device, self.dtype = func, device, dtype

    def key(self) -> tuple[Any, ...]:
        """Hashable identity of what this computes."""
        inner = self.func.key() if hasattr(self.func, "key") else self.func
        return (Autocast, inner, self.device, self.dtype)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device, self.dtype, cache_enabled=False):
            return self.func(*args, **kwargs)


def users_code(target: Any) -> str | None:
    """Why a call must stay opaque: code of the user's may do something else each time, and is run each time."""
    while isinstance(target, Autocast | Consuming | Flattened | InPlace):
        target = target.func
    if isinstance(target, CustomFunction):
        return "custom autograd function: its own backward is run"
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        name = str(target)
        if not name.startswith(("aten.", "prims.")):
            return f"custom operator {name}: its own backward is run"
    return None


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors inside nested tuples, lists and dicts, in order."""
    found: list[torch.Tensor] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, tuple | list):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
    return found


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where a tensor lies in its memory, in elements."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: torch.Tensor) -> Geometry:
        """Read it off a strided tensor."""
        return Geometry(tuple(tensor.size()), tuple(tensor.stride()), int(tensor.storage_offset()))
