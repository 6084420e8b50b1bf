"""What one line does, and what it costs: found by running it on fake tensors, which have sizes and no data.

Lines of one kind do the same, so each is run once for all vertices that share a local program.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..graph.vertex import TensorSpec
from .lines import Line
from .partition import HIDDEN_WRITES
from .precision import without_autocast

# Only their ratios matter: to what a value's bytes are weighed against, and to each other. One core of a CPU.
_FLOPS, _BYTES, _CALL = 5e10, 8e9, 2e-6  # a second; a second; seconds
_SLOW = 4.0  # an entry of exp, tanh, erf costs as much as so many additions
_TRANSCENDENTAL = frozenset(
    "exp expm1 log log1p log2 tanh sigmoid gelu silu mish softplus erf erfc pow sin cos rsqrt sqrt elu celu "
    "_softmax _log_softmax hardswish log_sigmoid_forward logsumexp".split()
)

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor that a line yields.

    Attributes:
        spec: its layout.
        source: (read, item) that it shares memory with, or None if the memory is its own.
        bytes: size of its own memory; 0 where it shares.
        group: numbers the memories that the line makes; parts that share one have the same.
    """

    spec: TensorSpec
    source: tuple[int, int] | None
    bytes: int
    group: int


@dataclass(frozen=True, slots=True)
class Value:
    """What a name stands for: a tensor, or a tuple (of tensors and of other things, which are None here)."""

    parts: tuple[Part | None, ...]
    many: bool = False


@dataclass(frozen=True, slots=True)
class Effect:
    """What one line does.

    Attributes:
        values: of the names that it assigns, in order.
        writes: reads (by position) whose memory it changes.
        silenced: reads that it changes besides what it yields, and does without: running statistics.
        closed: it draws random numbers, or cannot be run on fake tensors: it is never run again.
        seconds: estimated time.
        workspace: bytes that its kernels are thought to need while they run.
    """

    values: tuple[Value, ...]
    writes: frozenset[int] = frozenset()
    silenced: tuple[int, ...] = ()
    closed: bool = False
    seconds: float = 0.0
    workspace: int = 0


def external(spec: TensorSpec) -> Value:
    """A tensor that exists before the program runs: it costs no memory here."""
    return Value((Part(replace(spec, requires_grad=False), None, 0, 0),))


class Costs:
    """Looks lines up, and runs those that are new. Not safe on several threads."""

    def __init__(self) -> None:
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._known: dict[Any, Effect] = {}

    def effect(self, line: Line, reads: Sequence[Value]) -> Effect:
        """What a line does to values like these."""
        key = (line.text, len(line.outs), tuple(map(_layout, reads)))
        effect = self._known.get(key)
        if effect is None:
            with without_autocast(), torch.no_grad(), _quiet():
                try:
                    effect = self._run(line, reads)
                except Exception:  # looks at data, has no fake kernel, or is code that cannot be tried out
                    effect = closed(line, reads)
            self._known[key] = effect
        return effect

    def _run(self, line: Line, reads: Sequence[Value]) -> Effect:
        with self._fake:
            given = [_fake(value) for value in reads]
            names = {f"r{i}": value for i, value in enumerate(given)}
            text = line.text % tuple(names) if names else line.text.replace("%%", "%")
            with _Watch(given) as watch:
                result = eval(compile(text, "<pcgraph cost>", "eval"), {**dict(line.constants), "torch": torch}, names)
        results = (result,) if len(line.outs) == 1 else tuple(result) if line.outs else ()
        if len(results) != len(line.outs):
            raise ValueError("another number of results")
        memories = {key: (i, j) for i, value in enumerate(given) for j, key in _memories(value)}
        fresh: dict[int, int] = {}
        values = tuple(_value(item, memories, fresh) for item in results)
        silenced = tuple(sorted(watch.silenced))
        return Effect(
            values, frozenset(watch.written - watch.silenced), silenced, watch.random, watch.seconds, watch.workspace
        )


def closed(line: Line, reads: Sequence[Value], specs: Mapping[str, TensorSpec] | None = None) -> Effect:
    """What is believed of a line that cannot be run: that each result is new, and as large as the largest operand.

    Args:
        line: the line.
        reads: what it reads.
        specs: layouts of results that are known.
    """
    largest = max((p.spec for v in reads for p in v.parts if p is not None), key=nbytes, default=None)
    values = []
    for group, out in enumerate(line.outs):
        spec = largest if specs is None else specs.get(out)
        values.append(Value((None if spec is None else Part(spec, None, nbytes(spec), group),)))
    return Effect(tuple(values), closed=True, seconds=_CALL)


def nbytes(spec: TensorSpec) -> int:
    """Bytes of a tensor's entries."""
    return math.prod(spec.shape) * spec.dtype.itemsize


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's word on a line that cannot be run on fake tensors."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def _layout(value: Value) -> Any:
    return value.many, tuple(None if part is None else part.spec for part in value.parts)


def _fake(value: Value) -> Any:
    items = [
        None
        if p is None
        else torch.empty_strided(p.spec.shape, p.spec.stride, dtype=p.spec.dtype, device=p.spec.device)
        for p in value.parts
    ]
    return tuple(items) if value.many else items[0]


def _memories(value: Any) -> Iterator[tuple[int, int]]:
    for j, item in enumerate(value if isinstance(value, tuple) else (value,)):
        if isinstance(item, torch.Tensor):
            yield j, item.untyped_storage()._cdata


def _value(result: Any, memories: Mapping[int, tuple[int, int]], fresh: dict[int, int]) -> Value:
    many = isinstance(result, tuple | list)
    parts: list[Part | None] = []
    for item in result if many else (result,):
        if not isinstance(item, torch.Tensor) or item.layout is not torch.strided:
            parts.append(None)
            continue
        storage = item.untyped_storage()
        source = memories.get(storage._cdata)
        first = source is None and storage._cdata not in fresh
        group = fresh.setdefault(storage._cdata, len(fresh)) if source is None else -1
        spec = replace(TensorSpec.of(item), requires_grad=False)
        parts.append(Part(spec, source, storage.nbytes() if first else 0, group))
    return Value(tuple(parts), many)


class _Watch(TorchDispatchMode):
    """Notes what the ATen calls of one line write, draw and cost."""

    def __init__(self, reads: Sequence[Any]) -> None:
        super().__init__()
        self._place = {key: i for i, value in enumerate(reads) for _, key in _memories(value)}
        self.written: set[int] = set()
        self.silenced: set[int] = set()
        self.random = False
        self.seconds = 0.0
        self.workspace = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.random |= torch.Tag.nondeterministic_seeded in func.tags and not _without_dropout(func, args, kwargs)
        if func._schema.is_mutable:
            for place, argument in enumerate(func._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    value = args[place] if place < len(args) else kwargs.get(argument.name)
                    self.written.update(self._reads_of(value))
        elif func in HIDDEN_WRITES and args[5]:
            self.silenced.update(self._reads_of(args[3:5]))
            self.written.update(self._reads_of(args[3:5]))
        result = func(*args, **kwargs)
        self.seconds += _seconds(func, args, kwargs, result)
        self.workspace = max(self.workspace, _workspace(func, args))
        return result

    def _reads_of(self, value: Any) -> set[int]:
        tensors = [t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, torch.Tensor)]
        return {i for t in tensors if (i := self._place.get(t.untyped_storage()._cdata)) is not None}


def _without_dropout(func: Any, args: Any, kwargs: Any) -> bool:
    """Attention draws nothing on the CPU if nothing is dropped."""
    if func is not torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
        return False
    return (args[3] if len(args) > 3 else kwargs.get("dropout_p", 0.0)) == 0.0


def _seconds(func: Any, args: Any, kwargs: Any, result: Any) -> float:
    leaves = torch.utils._pytree.tree_leaves
    given = [t for t in leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    made = [t for t in leaves(result) if isinstance(t, torch.Tensor)]
    memories = {t.untyped_storage()._cdata for t in given}
    if not func._schema.is_mutable and all(t.untyped_storage()._cdata in memories for t in made):
        return 0.0  # a view
    packet = func._overloadpacket
    if packet in flop_registry:
        flops = flop_registry[packet](*args, **kwargs, out_val=result)
    elif "scaled_dot_product" in packet.__name__:
        flops = _attention(args) * (2.5 if "backward" in packet.__name__ else 1)
    else:
        flops = 0
    moved = float(sum(t.numel() * t.element_size() for t in (*given, *made)))
    if packet.__name__ in _TRANSCENDENTAL:
        moved *= _SLOW
    return _CALL + max(flops / _FLOPS, moved / _BYTES)


def _workspace(func: Any, args: Sequence[Any]) -> int:
    """Copies that oneDNN and ATen make on the CPU, as measured: of a convolution's operands, of batch norm's error."""
    packet = func._overloadpacket
    if packet is _aten.native_batch_norm_backward:
        return nbytes(TensorSpec.of(args[0]))
    if packet not in (_aten.convolution, _aten.convolution_backward) or args[0].device.type != "cpu":
        return 0
    backward = packet is _aten.convolution_backward
    weight, stride = (args[2], args[4]) if backward else (args[1], args[3])
    if all(k == 1 for k in weight.shape[2:]) and all(s == 1 for s in stride):
        return 0  # a product of matrices
    return sum(nbytes(TensorSpec.of(t)) for t in args[: 3 if backward else 2])


def _attention(args: Sequence[Any]) -> float:
    """Of query, key and value, wherever they stand: two products over all pairs of positions."""
    query, key = [a for a in args if isinstance(a, torch.Tensor)][:2]
    return 4.0 * query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2] * query.shape[3]
