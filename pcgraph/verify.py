"""`verify`: how far is Z-IL from backpropagation on this model? Uses nothing but the public API.

With the eager back end every bit has to be equal. One that fuses kernels rounds differently, and has to be about as
close to float64 as backprop itself (`rounding`).
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from .compiler import compile
from .errors import PCGraphError
from .measure import alternate, peak_memory, ratio, same_bits, ulps
from .rounding import distance, largest, same_run


@dataclass(frozen=True)
class Comparison:
    """One tensor of the network against backpropagation's.

    Attributes:
        name: of the parameter, input, output or buffer.
        kind: ``gradient``, ``output``, ``buffer``, ``random state``.
        shape: of the tensor; empty if there is none.
        status: ``bitwise``, ``none`` (no gradient on either side), ``close`` (explained by rounding; only with a back
            end that fuses kernels), ``differs``, ``missing`` (on one side only).
        ulp: largest distance in units in the last place.
        max_rel: largest absolute difference over the largest absolute value of backprop's tensor.
        from_float64: the network's distance from a float64 run of the plain model, relative to its largest value;
            None if it was not asked for.
        allowed: how much of that rounding explains.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    status: str
    ulp: int
    max_rel: float
    from_float64: float | None = None
    allowed: float | None = None

    @property
    def exact(self) -> bool:
        """Equal to the bit, or absent on both sides."""
        return self.status in ("bitwise", "none")

    @property
    def close(self) -> bool:
        """Equal up to rounding."""
        return self.exact or self.status == "close"


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    Attributes:
        model: class name.
        comparisons: one per output, gradient, buffer, and the random state.
        vertices, steps, opaque: of the compiled network.
        time_ratio: median time of a Z-IL step (prediction, loss, inference) over a backprop step.
        memory_ratio: peak tensor memory of the same, or None where backprop needs none.
        compile_seconds: capture to program.
        backend: that the network was compiled with.
        uncompiled: parts that the back end left as they are, and why.
    """

    model: str
    comparisons: tuple[Comparison, ...]
    vertices: int
    steps: int
    opaque: int
    time_ratio: float
    memory_ratio: float | None
    compile_seconds: float
    backend: str = "eager"
    uncompiled: Mapping[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether everything is equal to the bit."""
        return all(c.exact for c in self.comparisons)

    @property
    def close(self) -> bool:
        """Whether everything is equal up to rounding."""
        return all(c.close for c in self.comparisons)

    @property
    def max_rel(self) -> float:
        """Largest relative distance from backprop."""
        return max((c.max_rel for c in self.comparisons), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "exact": self.exact, "close": self.close}

    def __rich__(self) -> Any:
        """A table for rich."""
        from rich.table import Table

        table = Table(title=f"{self.model}: Z-IL against backpropagation", title_justify="left")
        for heading in ("kind", "name", "shape", "status", "ulp", "max rel. error"):
            table.add_column(heading, justify="right" if heading in ("ulp", "max rel. error") else "left")
        for c in self.comparisons:
            style = None if c.close else "bold red"
            shape = "x".join(map(str, c.shape))
            table.add_row(c.kind, c.name, shape, c.status, str(c.ulp), f"{c.max_rel:.1e}", style=style)
        memory = "-" if self.memory_ratio is None else f"{self.memory_ratio:.2f}"
        verdict = "exact" if self.exact else f"close, at most {self.max_rel:.1e} apart" if self.close else "NOT exact"
        left = f", {len(self.uncompiled)} parts not compiled" if self.uncompiled else ""
        table.caption = (
            f"{verdict}{left}; {self.vertices} vertices, T={self.steps}, "
            f"{self.opaque} opaque; step time {self.time_ratio:.2f}, peak memory {memory} of backprop; "
            f"compiled in {self.compile_seconds:.2f} s"
        )
        return table

    def __str__(self) -> str:
        from io import StringIO

        from rich.console import Console

        out = StringIO()
        Console(file=out, width=110, no_color=True).print(self)
        return out.getvalue()


def verify(
    model: torch.nn.Module,
    inputs: Sequence[Any] | torch.Tensor,
    kwargs: Mapping[str, Any] | None = None,
    loss: Callable[[Any], torch.Tensor] | None = None,
    *,
    rounds: int = 5,
    seed: int = 0,
    backend: str = "eager",
    mode: str = "default",
) -> Report:
    """Compare one step of Z-IL with one step of backpropagation, on copies of the model.

    Args:
        model: any module; it is copied and stays as it is.
        inputs: positional arguments of a call (a single tensor is one argument).
        kwargs: keyword arguments of a call.
        loss: maps the output to a scalar; by default every floating output is weighted with fixed random numbers
            and summed.
        rounds: timed steps per side.
        seed: of torch's random state before each step.
        backend: as for `compile`. With ``inductor`` gradients, outputs and buffers may be close instead of equal; the
            random state must be equal still.
        mode: as for `compile`.

    Raises:
        PCGraphError: the output depends on nothing that needs a gradient.
        CaptureError: the model cannot be compiled.

    >>> report = verify(torch.nn.Linear(3, 2), torch.ones(4, 3), rounds=1)
    >>> report.exact
    True
    """
    args: tuple[Any, ...] = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    keywords = dict(kwargs or {})
    loss = loss or _weighted_sum
    plain, twin = copy.deepcopy(model), copy.deepcopy(model)
    network = compile(twin, backend=backend, mode=mode)
    sides = {"backprop": _Side(plain, plain, args, keywords), "pcgraph": _Side(network, twin, args, keywords)}
    with _random_state_kept():
        for side in sides.values():
            side.run(loss, seed)
        exact = None if backend == "eager" else _in_float64(model, sides["backprop"], loss, seed)
        comparisons = tuple(_compare(sides["backprop"], sides["pcgraph"], exact))
        seconds = alternate({name: partial(side.step, loss) for name, side in sides.items()}, rounds, warmup=1)
        peaks = {name: peak_memory(partial(side.step, loss)) for name, side in sides.items()}
    graph = network.graph
    return Report(
        type(model).__name__,
        comparisons,
        graph.summary()["vertices"],
        graph.steps,
        graph.summary()["opaque"],
        ratio(seconds, "pcgraph", "backprop"),
        peaks["pcgraph"] / peaks["backprop"] if peaks["backprop"] else None,
        network.timings["total"],
        backend,
        network.cache_info()["uncompiled"],
    )


def _in_float64(
    model: torch.nn.Module, reference: _Side, loss: Callable[[Any], torch.Tensor], seed: int
) -> dict[tuple[str, str], torch.Tensor]:
    """What the same step in float64 leaves, by kind and name; nothing if there is no such step."""

    def wide(t: torch.Tensor) -> torch.Tensor:
        return t.detach().double().requires_grad_(t.requires_grad) if t.is_floating_point() else t

    try:
        twin = copy.deepcopy(model).double()
        side = _Side(twin, twin, *tree_map_only(torch.Tensor, wide, (reference.args, reference.kwargs)))
        side.run(loss, seed)
    except Exception:  # a model with a type of its own
        return {}
    if not all(map(same_run, reference.output, side.output)):
        return {}
    return {(kind, name): t for kind, name, t in _everything(side) if t is not None}


def _everything(side: _Side) -> Iterator[tuple[str, str, torch.Tensor | None]]:
    """Kind, name and tensor of all there is to compare."""
    for k, output in enumerate(side.output):
        yield "output", f"output {k}", output
    for name, parameter in side.model.named_parameters():
        yield "gradient", name, parameter.grad
    for k, x in enumerate(side.inputs()):
        yield "gradient", f"input {k}", x.grad
    for name, buffer in side.model.named_buffers():
        yield "buffer", name, buffer
    yield "random state", "generator", side.random


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """The caller's random numbers go on where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


class _Side:
    """One of the two ways of learning, with inputs of its own."""

    def __init__(self, call: Callable[..., Any], model: torch.nn.Module, args: Any, kwargs: Any) -> None:
        def fresh(t: torch.Tensor) -> torch.Tensor:
            return t.detach().clone(memory_format=torch.preserve_format).requires_grad_(t.requires_grad)

        self.call, self.model = call, model
        self.args, self.kwargs = tree_map_only(torch.Tensor, fresh, (args, kwargs))
        self.output: list[Any] = []
        self.random: torch.Tensor = torch.empty(0)

    def run(self, loss: Callable[[Any], torch.Tensor], seed: int) -> None:
        """One step from a known random state, keeping everything that is compared."""
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.output = self.step(loss)
        self.random = torch.get_rng_state()

    def step(self, loss: Callable[[Any], torch.Tensor]) -> list[Any]:
        """Prediction, loss, gradients."""
        self.model.zero_grad(set_to_none=True)
        for tensor in self.inputs():
            tensor.grad = None
        with torch.enable_grad():
            output = self.call(*self.args, **self.kwargs)
            value = loss(output)
            if not value.requires_grad:
                raise PCGraphError(
                    "the loss depends on nothing that needs a gradient",
                    hint="check that the output is differentiable and that some parameter has requires_grad=True",
                )
            value.backward()
        return [t.detach() for t in tree_leaves(output) if isinstance(t, torch.Tensor)]

    def inputs(self) -> list[torch.Tensor]:
        """Input tensors that need a gradient."""
        leaves = tree_leaves((self.args, self.kwargs))
        return [t for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad]


def _weighted_sum(output: Any) -> torch.Tensor:
    total: torch.Tensor | None = None
    generator = torch.Generator().manual_seed(1)
    for tensor in tree_leaves(output):
        if isinstance(tensor, torch.Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
            real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            weights = torch.randn(real.shape, generator=generator, dtype=torch.float64)
            term = (real * weights.to(real.device, real.dtype)).sum()
            total = term if total is None else total + term
    if total is None:
        raise PCGraphError("the model returns no floating point tensor", hint="pass loss= to say what is trained")
    return total


def _compare(
    reference: _Side, candidate: _Side, exact: Mapping[tuple[str, str], torch.Tensor] | None
) -> Iterator[Comparison]:
    pairs = list(zip(_everything(reference), _everything(candidate), strict=True))
    scales = {kind: 0.0 for (kind, _, _), _ in pairs}
    for (kind, _, a), _ in pairs:
        if a is not None and exact is not None and a.is_floating_point():
            scales[kind] = max(scales[kind], largest(a.detach(), torch.isfinite(a)))
    for (kind, name, a), (_, _, b) in pairs:
        found = _tensor(name, kind, a, b)
        if exact is not None and found.status == "differs" and found.ulp >= 0:
            assert a is not None and b is not None
            gap, allowed = distance(a, b, exact.get((kind, name)), scales[kind])
            status = "close" if gap <= allowed else "differs"
            found = replace(found, status=status, from_float64=gap, allowed=allowed)
        yield found


def _tensor(name: str, kind: str, a: torch.Tensor | None, b: torch.Tensor | None) -> Comparison:
    if a is None or b is None:
        return Comparison(name, kind, (), "none" if a is b else "missing", 0, 0.0)
    shape = tuple(a.shape)
    if same_bits(a, b):
        return Comparison(name, kind, shape, "bitwise", 0, 0.0)
    if a.shape != b.shape or a.dtype != b.dtype or not (a.is_floating_point() or a.is_complex()):
        return Comparison(name, kind, shape, "differs", -1, float("inf"))
    scale = a.abs().max().double().item()
    gap = (a.double() - b.double()).abs().max().item() if not a.is_complex() else (a - b).abs().max().item()
    return Comparison(name, kind, shape, "differs", ulps(a, b), gap / scale if scale else float("inf"))
