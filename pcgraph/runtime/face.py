"""The loss, looked at from the outputs: their errors at any prediction, by the Z-IL program of the loss itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from ..codegen import Inference, Program, slopes
from ..errors import PCGraphError
from .signature import memories_of
from .step import Loss, learned, one_number
from .surroundings import refuse_surroundings

if TYPE_CHECKING:
    from .compiled import Compiled
    from .network import Capture, PCNetwork


_short: WeakKeyDictionary[Program, Any] = WeakKeyDictionary()  # slopes by program of a loss


class LossAlone(torch.nn.Module):
    """A loss as a model: output and target in, a scalar out."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss
        owner = getattr(loss, "__self__", None)
        if isinstance(owner, torch.nn.Module):  # a method: its module may have parameters
            self.owner = owner

    def __call__(self, output: Any, target: Any) -> torch.Tensor:
        """As `forward`, without hooks on all modules."""
        return self.forward(output, target)

    def forward(self, output: Any, target: Any) -> torch.Tensor:
        """The loss."""
        return one_number(self.loss(output, target))


class Face:
    """What a network's outputs face: called with the outputs, it returns their errors.

    The loss is looked up once and then run as it is at every step, unless it reads values (``if loss > 1:``): only the
    numbers in its arguments change meanwhile.

    Args:
        network: of the loss alone.
        rebuild: output tensors -> the model's return value.
        inference: whose outputs they are.
        target: second argument of the loss.
        always: the loss is asked for at every step; else only its slopes are, after the first.

    Attributes:
        losses: of every call, or of the first one; 0-dim tensors.
    """

    def __init__(
        self,
        network: PCNetwork,
        rebuild: Callable[[Sequence[Any]], Any],
        inference: Inference,
        target: Any,
        always: bool,
    ) -> None:
        self._network, self._rebuild, self._target = network, rebuild, target
        graph = inference.graph
        self._carrying = [k for k, ref in enumerate(graph.outputs) if graph.carries_error(ref)]
        self._strides = [inference.cells.errors[ref].stride for ref in inference.faced]
        self.losses: list[torch.Tensor] = []
        self._always = always
        self._short: Any = None  # slopes alone
        self._steady: list[Any] | None = None  # their arguments, where only the outputs change from step to step
        self._moving: list[tuple[int, int]] = []  # places among them, and the outputs that go there
        self._capture: Capture | None = None
        self._inputs: list[torch.Tensor] = []
        self._places: list[int] = []  # of the outputs among the loss's inputs
        self._found: list[int | None] = []  # of the outputs among what the loss hands errors to

    def __call__(self, outputs: list[Any]) -> list[torch.Tensor]:
        """Errors of the outputs that carry one, in PyTorch's sign: ``dL/dmu``."""
        if self._steady is not None:
            values = self._steady.copy()
            for place, k in self._moving:
                values[place] = outputs[k]
            return self._errors(outputs, self._short(values))
        capture = self._capture
        if capture is None:
            capture = self._look(outputs)
        else:
            for place, k in zip(self._places, self._carrying, strict=True):
                self._inputs[place] = outputs[k]
            if capture.once or (capture.asks and not capture.holds(self._inputs, memories_of(self._inputs))):
                capture = self._look(outputs)
            elif self._short is not None:
                return self._errors(outputs, self._short(capture.compiled.binding.values(self._inputs)))
        value, found = self._slopes(capture.compiled)
        self.losses.append(value)
        return self._errors(outputs, found)

    def _errors(self, outputs: list[Any], found: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        """One error per output, laid out as the program expects it."""
        errors = []
        for k, n, stride in zip(self._carrying, self._found, self._strides, strict=True):
            slope = None if n is None else found[n]
            if slope is None or slope.stride() != stride:
                slope = _laid_out(outputs[k], slope, stride)
            errors.append(slope)
        return errors

    def _look(self, outputs: list[Any]) -> Capture:
        """Find or capture the loss for these outputs."""
        outputs = list(outputs)
        leaves = []
        for k in self._carrying:
            outputs[k] = outputs[k].detach().requires_grad_()
            leaves.append(outputs[k])
        with torch.enable_grad():
            self._inputs, capture = captured(self._network, (self._rebuild(outputs), self._target), {})
        places = {id(tensor): place for place, tensor in enumerate(self._inputs)}
        self._places = [places[id(leaf)] for leaf in leaves]
        compiled = capture.compiled
        sources = [compiled.binding.sources[i] for i in compiled.sources[0]]
        if not set(sources) <= set(self._places):
            raise PCGraphError(
                "the loss has parameters of its own, or a target that needs a gradient",
                hint="put the parameters into the model, detach the target, or use pcn.step",
            )
        if not sources:
            raise PCGraphError(
                "the loss does not depend on an output with an error", hint="compute it from the model's output"
            )
        self._found = [sources.index(place) if place in sources else None for place in self._places]
        self._capture, self._short = capture, None
        if compiled.straight and not self._always:
            program = compiled.program
            if program not in _short:
                _short[program] = slopes(program)
            self._short = _short[program]
        if self._short is not None and not (capture.once or capture.asks):
            self._steady = compiled.binding.values(self._inputs)
            output_at = dict(zip(self._places, self._carrying, strict=True))
            where = enumerate(compiled.binding.sources)
            self._moving = [(i, output_at[place]) for i, place in where if place in output_at]
        return capture

    def _slopes(self, compiled: Compiled) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
        value: torch.Tensor
        found: Sequence[torch.Tensor | None]
        values = compiled.binding.values(self._inputs)
        leaves = [values[i] for i in compiled.sources[0]]
        if compiled.straight:
            value, found = learned(compiled, values, leaves)
        else:  # the engine sees one node per segment of the loss
            with torch.enable_grad():
                leaves = [leaf.detach().requires_grad_() for leaf in leaves]
                inputs = list(self._inputs)
                for place, n in zip(self._places, self._found, strict=True):
                    if n is not None:
                        inputs[place] = leaves[n]
                value = compiled(inputs)
                found = torch.autograd.grad(value, leaves, allow_unused=True)
                value = value.detach()
        return value, found


def _laid_out(output: torch.Tensor, slope: torch.Tensor | None, stride: tuple[int, ...]) -> torch.Tensor:
    """An error in memory of its own, laid out as the program expects."""
    own = torch.empty_strided(output.shape, stride, dtype=output.dtype, device=output.device)
    return own.zero_() if slope is None else own.copy_(slope)


def captured(
    network: PCNetwork, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[list[torch.Tensor], Capture]:
    """The tensors of a call, and its program."""
    if not torch.is_grad_enabled():
        raise PCGraphError("learning needs gradients, which are switched off", hint="leave torch.no_grad() first")
    refuse_surroundings()
    given = network._signatures.of(args, kwargs)
    capture = network._find(given)
    if capture is None:
        if not any(t.requires_grad for t in (*network.parameters(), *given.tensors)):
            raise PCGraphError("neither a parameter nor an input requires a gradient", hint="unfreeze one of them")
        capture = network._capture(args, kwargs, given.signature)
    else:
        network._counts["hits"] += 1
    return given.tensors, capture
