"""Local programs: the prediction of one vertex kind and its vector-Jacobian product, traced ahead of time.

A kind is an operation with its constants and the layouts of its operands. It is traced once, on fake tensors,
with autograd's own formulas for this one operation: no error of another vertex, and no other vertex's value,
can enter. The trace is cut in two: what depends on an error belongs to the learning program; what the
prediction needs, what mutates and what draws random numbers to the prediction program; the rest (views, masks)
is recomputed while learning from what the vertex saved, as autograd does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten

from ..graph.vertex import TensorSpec
from . import check, opaque, partition
from .families import Families
from .kinds import Kind
from .lines import Line, fresh_name, line_of
from .precision import settings

_MAX_KINDS = 8192
_CLOSED = {
    "prod": "torch's derivative of it looks at the data",  # is a factor 0? Then it goes another way
    "cumprod": "torch's derivative of it looks at the data",
    "as_strided": "it reads memory beyond its operand's",
}


@dataclass(frozen=True)
class LocalProgram:
    """Lines over local names.

    ``a<i>`` are operands, ``y<j>`` outputs, ``g<j>`` errors of outputs, ``c<i>`` errors collected so far at operands,
    ``t<n>`` temporaries.

    Attributes:
        predict: lines that compute the outputs.
        learn: lines that compute the errors of the operands.
        outputs: local name of each output (an operand's name for a pass-through).
        errors: per operand, the local name of the error it receives, or None.
        layouts: per operand, layout of that error.
        wanted: operands that need an error.
        repeated: operands that autograd would add to more than once, so that the error collected so far must
            enter the local product first: (err + a) + b is not err + (a + b).
        opaque: why the kind could not be traced, or None.
    """

    predict: tuple[Line, ...]
    learn: tuple[Line, ...]
    outputs: tuple[str, ...]
    errors: tuple[str | None, ...]
    layouts: tuple[TensorSpec | None, ...]
    repeated: frozenset[int]
    wanted: tuple[int, ...] = ()
    opaque: str | None = None

    @cached_property
    def temporaries(self) -> tuple[str, ...]:
        """All names that the lines make."""
        return tuple(dict.fromkeys(out for line in (*self.predict, *self.learn) for out in line.outs))

    @cached_property
    def first_outputs(self) -> frozenset[int]:
        """Outputs that the prediction makes, each counted where it is returned first."""
        first = {name: k for k, name in reversed(list(enumerate(self.outputs))) if name[0] in "ty"}
        return frozenset(first.values())

    @cached_property
    def first_errors(self) -> tuple[tuple[int, str], ...]:
        """Errors that the learning lines make, with the first operand that each goes to."""
        made = {out for line in self.learn for out in line.outs}
        first = {name: i for i, name in reversed(list(enumerate(self.errors))) if name in made and name is not None}
        return tuple((i, name) for name, i in first.items())


class LocalPrograms:
    """Builds and caches local programs by kind."""

    def __init__(self) -> None:
        self._cache: dict[Any, LocalProgram] = {}
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._beliefs: dict[Any, opaque.Beliefs] = {}  # of opaque kinds
        self._sums: dict[tuple[TensorSpec, TensorSpec], TensorSpec] = {}
        self._families = Families()

    def __len__(self) -> int:
        return len(self._cache)

    def get(self, kind: Kind) -> LocalProgram:
        """The local program of a kind."""
        key = (kind.key, settings())
        program = self._cache.get(key)
        if program is None:
            if len(self._cache) >= _MAX_KINDS:
                self._cache.pop(next(iter(self._cache)))
            with torch.autograd.set_detect_anomaly(False):  # of the user's: it would complain of what is tried out here
                program = self._cache[key] = self._build(kind)
        return program

    def forget_opaque(self) -> None:
        """Build opaque programs anew: more is known of the errors that they hand on."""
        self._cache = {key: program for key, program in self._cache.items() if program.opaque is None}

    def sum_layout(self, a: TensorSpec, b: TensorSpec) -> TensorSpec:
        """Layout of the sum of two errors."""
        if a == b:
            return a
        if (a, b) not in self._sums:
            with self._fake, torch.no_grad():
                self._sums[a, b] = replace(TensorSpec.of(self._empty(a) + self._empty(b)), requires_grad=False)
        return self._sums[a, b]

    # -- tracing -----------------------------------------------------------------------------------
    def _empty(self, spec: TensorSpec, grad: bool = False) -> torch.Tensor:
        tensor = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype, device=spec.device)
        return tensor.requires_grad_(grad)

    def _build(self, kind: Kind) -> LocalProgram:
        operation = kind.operation
        wanted = [i for i, spec in enumerate(kind.operands) if spec.requires_grad]
        try:
            for part in operation.parts:
                plain_name = part.name.split(".")[0].removesuffix("_")  # of the ATen and the in-place call as well
                if plain_name in _CLOSED:
                    raise _Untraceable(_CLOSED[plain_name])
            if any(map(check.is_sparse, (*kind.operands, *kind.outputs))):
                raise _Untraceable("a tensor in a layout without strides")
            closed = operation.opaque or kind.closed
            if closed is not None:
                raise _Untraceable(closed)
            derived = self._derived(kind)
            if derived is not None:
                return derived
            program = self._trace(kind, wanted)
            layouts: dict[int, TensorSpec] = {}
            difference = check.difference(kind, program, layouts)
            if difference is not None:
                raise _Untraceable(difference)
            program = replace(program, layouts=tuple(layouts.get(i, spec) for i, spec in enumerate(program.layouts)))
            self._families.add(kind, program, settings())
            return program
        except _Untraceable as why:
            reason = str(why)
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        return _opaque_program(kind, wanted, reason, self._believed(kind, wanted))

    def _derived(self, kind: Kind) -> LocalProgram | None:
        """The program that follows from kinds of other sizes, if it is proven."""
        program = self._families.derive(kind, settings())
        if program is None:
            return None
        layouts: dict[int, TensorSpec] = {}
        try:
            if not any(program.errors) and not check.predicts(kind, program):
                return None
            if check.difference(kind, program, layouts, thorough=False) is not None:
                return None
        except Exception:  # a call with a number that it does not take
            return None
        known = tuple(layouts.get(i) for i in range(len(kind.operands)))
        if any((layout is None) != (error is None) for layout, error in zip(known, program.errors, strict=True)):
            return None  # random data lie outside of the operation's domain: nothing is proven
        return replace(program, layouts=known)

    def _believed(self, kind: Kind, wanted: list[int]) -> opaque.Beliefs:
        """What is known of the errors of an opaque kind; at first, what a trial on random operands shows."""
        beliefs = self._beliefs.get(kind.key)
        if beliefs is None:
            if len(self._beliefs) >= _MAX_KINDS:
                self._beliefs.pop(next(iter(self._beliefs)))
            beliefs = self._beliefs[kind.key] = opaque.Beliefs()
            users = kind.operation.opaque is not None  # code of the user's is not tried out
            trial = None if users or not kind.errors else check.errors(kind, wanted)
            for place, i in enumerate(wanted):
                beliefs.layouts[i] = opaque.like_operand(kind.operands[i])
                if trial is not None and trial[place] is None:
                    beliefs.silent.add(i)
                elif trial is not None and trial[place].layout is torch.strided:
                    beliefs.layouts[i] = opaque.error_spec(trial[place])
        return beliefs

    def _trace(self, kind: Kind, wanted: list[int]) -> LocalProgram:
        with self._fake, torch.enable_grad():
            values = [self._empty(spec, spec.requires_grad) for spec in kind.operands]
            arriving = [self._empty(spec) for _, spec in (*kind.errors, *kind.collected)]
            predicted: list[str] = []
            repeated: set[int] = set()

            def step(values: list[torch.Tensor], arriving: list[torch.Tensor]) -> Any:
                results = kind.call(values)
                predicted.extend(partition.names_so_far())
                _check(results, kind.outputs)
                repeated.update(_repeated(results, values, wanted))
                if not kind.errors:
                    return results, ()
                roots = [results[j] for j, _ in kind.errors] + [values[i] for i, _ in kind.collected]
                return results, torch.autograd.grad(roots, [values[i] for i in wanted], arriving, allow_unused=True)

            traced = make_fx(step, tracing_mode="real", _allow_non_fake_inputs=True)(values, arriving)
        return _program(traced, kind, wanted, frozenset(repeated), predicted)


def _check(results: Sequence[torch.Tensor], expected: Sequence[TensorSpec | None]) -> None:
    """Refuse a trace whose results differ from what the capture saw for real."""
    if len(results) != len(expected):
        raise _Untraceable(f"returns {len(results)} tensors on fake operands, {len(expected)} for real")
    for result, spec in zip(results, expected, strict=True):
        if spec is not None and _settled(TensorSpec.of(result)) != _settled(spec):
            raise _Untraceable(f"is {TensorSpec.of(result)} on fake operands, {spec} for real")


def _settled(spec: TensorSpec) -> TensorSpec:
    return replace(spec, stride=check.effective_stride(spec))


class _Untraceable(Exception):
    """This kind cannot be traced ahead; it becomes opaque."""


def _repeated(results: Sequence[torch.Tensor], values: Sequence[torch.Tensor], wanted: list[int]) -> frozenset[int]:
    """Operands that more than one edge of the operation's own autograd graph leads to."""
    counts = dict.fromkeys((id(values[i]) for i in wanted), 0)
    stack = [t.grad_fn for t in results if t.grad_fn is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for child, _ in node.next_functions:
            if child is None:
                continue
            variable = getattr(child, "variable", None)
            if variable is not None and id(variable) in counts:
                counts[id(variable)] += 1
            elif variable is None:
                stack.append(child)
    return frozenset(i for i in wanted if counts[id(values[i])] > 1)


def _program(
    traced: fx.GraphModule, kind: Kind, wanted: list[int], repeated: frozenset[int], predicted: list[str]
) -> LocalProgram:
    n_operands, n_outputs = len(kind.operands), len(kind.outputs)
    graph = traced.graph
    # By names given before anything was dropped: the prediction comes first in every trace of an operation, so its
    # temporaries are numbered alike whatever errors arrive.
    number_of = {name: number for number, name in enumerate(predicted)}
    calls = [node for node in graph.nodes if node.op != "placeholder"]
    numbers = {node: f"t{number_of.setdefault(node.name, len(number_of))}" for node in calls}
    partition.simplify(graph)
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    names: dict[fx.Node, str] = {node: f"a{i}" for i, node in enumerate(inputs[:n_operands])}
    arriving = inputs[n_operands:]
    names.update(zip(arriving, kind.arrivals, strict=True))
    returned, _ = tree_flatten(next(n for n in graph.nodes if n.op == "output").args[0], is_leaf=lambda x: x is None)
    results, gradients = returned[:n_outputs], returned[n_outputs:]
    predict_nodes, learn_nodes = partition.cut(
        graph, frozenset(predicted), [r for r in results if isinstance(r, fx.Node)]
    )
    constants: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            constants[node] = getattr(traced, node.target)
            if not isinstance(constants[node], torch.Tensor) or type(constants[node]) is not torch.Tensor:
                raise _Untraceable("holds a constant that exists only while tracing")
    for node in (*predict_nodes, *learn_nodes):
        names[node] = numbers[node]

    def name_of(value: Any) -> str | None:
        return names.get(value) if isinstance(value, fx.Node) else None

    def lines(nodes: list[fx.Node]) -> tuple[Line, ...]:
        result = []
        for node in nodes:
            args = fx.node.map_arg((node.args, node.kwargs), lambda n: constants.get(n, n))
            if any(n in constants for n in node.all_input_nodes):
                node = _WithArgs(node, *args)  # type: ignore[assignment]
                result.append(line_of(node, name_of, names[node.node] if node.users else None))  # type: ignore[attr-defined]
            else:
                result.append(line_of(node, name_of, names[node] if node.users else None))
        return tuple(result)

    gradient = dict(zip(wanted, gradients or [None] * len(wanted), strict=True))
    arriving_layout = {node: spec for node, (_, spec) in zip(arriving, (*kind.errors, *kind.collected), strict=True)}
    return LocalProgram(
        lines(predict_nodes),
        lines(learn_nodes),
        tuple(names[r] for r in results),
        tuple(names[gradient[i]] if gradient.get(i) is not None else None for i in range(n_operands)),
        tuple(
            _layout(gradient[i], arriving_layout) if gradient.get(i) is not None else None for i in range(n_operands)
        ),
        repeated,
        tuple(wanted),
    )


class _WithArgs:
    """An fx node seen with other arguments (constants put in)."""

    def __init__(self, node: fx.Node, args: Any, kwargs: Any) -> None:
        self.node, self.args, self.kwargs = node, args, kwargs
        self.target, self.users = node.target, node.users


def _layout(node: fx.Node, arriving: dict[fx.Node, TensorSpec]) -> TensorSpec:
    if node in arriving:
        return arriving[node]
    value = node.meta.get("val")
    if value is None:
        raise _Untraceable("has an error of unknown layout")
    return replace(TensorSpec.of(value), requires_grad=False)


def _opaque_program(kind: Kind, asked: list[int], reason: str, beliefs: opaque.Beliefs) -> LocalProgram:
    """One vertex with an autograd graph of its own: still local, still exact, but closed."""
    operands = kind.operands
    wanted = [i for i in asked if i not in beliefs.silent]
    names = [f"a{i}" for i in range(len(operands))]
    flags = tuple(spec.requires_grad for spec in operands)
    outputs = tuple(f"y{j}" for j in range(len(kind.outputs)))
    predict = opaque.Predict(kind.operation, kind.places, flags)
    literal = ", ".join(["%s"] * len(names))
    key = fresh_name()
    predict_line = Line((*outputs, "t0"), f"{key}({literal})", tuple(names), ((key, predict),))
    layouts = [beliefs.layouts[i] if i in wanted else None for i in range(len(operands))]
    learn = opaque.Learn(
        tuple(j for j, _ in kind.errors),
        tuple(i for i, _ in kind.collected),
        tuple(wanted),
        tuple(i for i in asked if i in beliefs.silent),
        beliefs,
    )
    arriving = kind.arrivals
    results = tuple(f"t{1 + n}" for n in range(len(wanted)))
    learn_key = fresh_name()
    text = f"{learn_key}({', '.join(['%s'] * (1 + len(arriving)))})" + ("[0]" if len(results) == 1 else "")
    called = kind.errors and (wanted or learn.quiet)
    learn_lines = (Line(results, text, ("t0", *arriving), ((learn_key, learn),)),) if called else ()
    position = {i: n for n, i in enumerate(wanted)}
    return LocalProgram(
        (predict_line,),
        learn_lines,
        outputs,
        tuple(results[position[i]] if i in position and kind.errors else None for i in range(len(operands))),
        tuple(layouts),
        frozenset(wanted),
        tuple(wanted),
        reason,
    )
