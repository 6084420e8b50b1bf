"""Straight-line code that evaluates steps one after the other and compares what they return with what they returned.

Asked at every call of a network, between two programs: a loop over records takes ten microseconds a step, this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Place:
    """Stands for the value of an earlier step, or of a source."""

    index: int


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        target: a function, or the name of a method of the first argument.
        args, kwargs: with places in them, at any depth.
        learns: whether autograd was on: it decides between kernels.
        answer: what it must return, as a tuple of one; () if anything will do.
    """

    target: Callable[..., Any] | str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    learns: bool
    answer: tuple[Any, ...]


def emit(steps: Sequence[Step], sources: int, same: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    """A function of the sources' values that tells whether every step returns what it should.

    It stops at the first step that does not, and raises what a step raises.

    Args:
        steps: in order; step k has place `sources` + k.
        sources: number of values given.
        same: compares a value with an answer.

    >>> double = Step("mul", (Place(0), 2), {}, False, ())
    >>> read = Step("item", (Place(1),), {}, False, (6,))
    >>> ask = emit([double, read], 1, lambda value, answer: value == answer)
    >>> ask(torch.tensor(3)), ask(torch.tensor(4))
    (True, False)
    """
    scope: dict[str, Any] = {"grad_mode": torch._C._set_grad_enabled, "is_on": torch.is_grad_enabled, "same": same}
    lines = [f"def ask({', '.join(f'v{k}' for k in range(sources))}):", " before = is_on()", " try:"]
    mode: bool | None = None
    for place, step in enumerate(steps, sources):
        if step.learns is not mode:
            mode = step.learns
            lines.append(f"  grad_mode({mode})")
        lines.append(f"  v{place} = {_call(step, scope)}")
        if step.answer:
            lines.append(f"  if {_differs(f'v{place}', step.answer[0], scope)}: return False")
    lines += ["  return True", " finally: grad_mode(before)"]
    exec("\n".join(lines), scope)
    asking: Callable[..., bool] = scope["ask"]
    return asking


def _call(step: Step, scope: dict[str, Any]) -> str:
    args = [_value(arg, scope) for arg in step.args]
    named = [f"**{_value(step.kwargs, scope)}"] if step.kwargs else []  # ``random_(from=0)`` is no Python
    if isinstance(step.target, str):
        return f"{args[0]}.{step.target}({', '.join(args[1:] + named)})"
    return f"{_constant(step.target, scope)}({', '.join(args + named)})"


def _differs(value: str, answer: Any, scope: dict[str, Any]) -> str:
    if answer is None or answer is True or answer is False:
        return f"{value} is not {answer}"
    return f"not same({value}, {_constant(answer, scope)})"


def _value(value: Any, scope: dict[str, Any]) -> str:
    """Containers are built anew at each call: they may have places in them, and a step may write to them."""
    if isinstance(value, Place):
        return f"v{value.index}"
    if isinstance(value, tuple):
        return f"({''.join(f'{_value(item, scope)}, ' for item in value)})"
    if isinstance(value, list):
        return f"[{', '.join(_value(item, scope) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_constant(key, scope)}: {_value(item, scope)}' for key, item in value.items())}}}"
    if isinstance(value, slice):
        return f"slice({', '.join(_value(end, scope) for end in (value.start, value.stop, value.step))})"
    return _constant(value, scope)


def _constant(value: Any, scope: dict[str, Any]) -> str:
    if value is None or value is True or value is False or type(value) is int:
        return str(value)
    name = f"c{len(scope)}"
    scope[name] = value
    return name
