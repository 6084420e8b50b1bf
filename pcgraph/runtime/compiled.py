"""One captured call, compiled: a program, the tensors it reads, and how to rebuild the return value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..codegen import Program, without_autocast
from ..graph import Ref, Role
from .binding import Binding
from .bridge import Wave, layout

_LEAF_ROLES = (Role.INPUT, Role.PARAMETER, Role.STATE)


class Compiled:
    """A program bound to the model's tensors.

    Args:
        program: the compiled prediction and learning.
        binding: where the values of its externals come from, and how its outputs form the return value.
        on_errors: called with the watched errors after every learning phase.
        stale: autograd's complaint if the model writes to a value that learning needs; raised when learning.
    """

    def __init__(
        self,
        program: Program,
        binding: Binding,
        on_errors: Callable[[dict[Ref, Any]], None],
        stale: str | None = None,
    ) -> None:
        self.program = program
        self.binding = binding
        self.stale = stale
        self.watch: tuple[Ref, ...] = ()
        self._on_errors = on_errors
        graph = program.graph
        learning, plain, given = [], [], []
        for k, ref in enumerate(graph.outputs):
            # A tensor of the caller's comes back as it is, unless errors from inside and outside meet in it: then
            # they must be added in here, where the order of sums is autograd's.
            role = graph[ref.vertex].role
            if role is Role.STATE or (role in _LEAF_ROLES and not graph.uses[ref.vertex]):
                given.append(k)
            elif graph.carries_error(ref):
                learning.append(k)
            else:
                plain.append(k)
        self.learning_outputs, self.plain_outputs, self._given = tuple(learning), tuple(plain), tuple(given)
        position = {name: i for i, name in enumerate(program.externals)}
        self._leaf_positions = [position[name] for name in program.leaves]
        self._given_positions = [position[graph.outputs[k].vertex] for k in given]
        self._n_outputs = len(graph.outputs)
        self._checked: tuple[int, ...] | None = None

    @property
    def first(self) -> bool:
        """Whether it is not known yet which saved values share memory with what the caller holds."""
        return self._checked is None

    # -- running -----------------------------------------------------------------------------------
    def __call__(self, inputs: Sequence[torch.Tensor]) -> Any:
        """Predict, and be ready to learn."""
        values = self.binding.values(inputs)
        leaves = [values[i] for i in self._leaf_positions]
        outputs: list[Any] = [None] * self._n_outputs
        for k, position in zip(self._given, self._given_positions, strict=True):
            outputs[k] = values[position]
        plain: list[Any] = []
        if self.learning_outputs:
            if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
                with without_autocast():
                    learned = Wave.apply(self, values, plain, *leaves)
            else:
                learned = Wave.apply(self, values, plain, *leaves)
            for k, value in zip(self.learning_outputs, learned, strict=True):
                outputs[k] = value
        else:
            with torch.no_grad(), without_autocast():
                predicted, _ = self.program.predict(values)
            plain = [predicted[k] for k in self.plain_outputs]
        for k, value in zip(self.plain_outputs, plain, strict=True):
            outputs[k] = value
        return self.binding.rebuild(outputs)

    def learn(self, saved: list[Any], errors: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
        """Gradients of the leaves from the errors of the learning outputs."""
        layouts: list[Any] = [None] * self._n_outputs
        arriving = []
        for k, error in zip(self.learning_outputs, errors, strict=True):
            if error is not None:
                layouts[k] = layout(error)
                arriving.append(error)
        if not arriving:
            return (None,) * len(self._leaf_positions)
        gradients, watched = self.program.run_learning(saved, arriving, tuple(layouts), self.watch)
        if self.watch:
            self._on_errors(dict(zip(self.watch, watched, strict=True)))
        return tuple(gradients)

    # -- values changed between prediction and learning ---------------------------------------------
    def versions(self, saved: list[Any], outputs: Sequence[Any], given: Sequence[Any]) -> list[int]:
        """Version counters of the saved values that somebody outside can write to."""
        if self._checked is None:
            outside = {_memory(t) for t in (*outputs, *given)}
            inside = {f"x_{name}" for name in self.program.externals}
            self._checked = tuple(
                i
                for i, (name, value) in enumerate(zip(self.program.saved, saved, strict=True))
                if isinstance(value, torch.Tensor) and (name in inside or _memory(value) in outside)
            )
        return [saved[i]._version for i in self._checked]

    def presentable(self, output: torch.Tensor, saved: list[Any]) -> torch.Tensor:
        """An output that the caller may write to: no view, unless it shares memory with something kept."""
        if not output._is_view():
            return output
        memory = _memory(output)
        if any(_memory(value) == memory for value in (*saved, *self.binding.tensors)):
            return output
        whole = torch.empty(0, dtype=output.dtype, device=output.device)
        return whole.set_(output.untyped_storage(), output.storage_offset(), output.size(), output.stride())

    def check_versions(self, saved: list[Any], versions: list[int]) -> None:
        """Raise as autograd does if a value needed for learning was changed in place since the prediction."""
        assert self._checked is not None
        for i, version in zip(self._checked, versions, strict=True):
            if saved[i]._version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace operation: "
                    f"{self.program.saved[i].split('_', 1)[1]!r} of shape {list(saved[i].shape)} is at version "
                    f"{saved[i]._version}; expected version {version} instead. Learn before changing it."
                )


def _memory(tensor: Any) -> int | None:
    if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
        return None
    return tensor.untyped_storage()._cdata
