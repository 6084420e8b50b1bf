"""The tape: calls that were seen become nodes of a torch.fx graph, in single assignment form."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ..errors import CaptureError
from ..graph.vertex import TensorSpec
from .arguments import collect, position, replaced
from .casts import Cast
from .consumed import Consumed
from .exposed import Exposed
from .externals import Externals
from .mutation import Autocast, Consuming, CustomFunction, Flattened, Geometry, InPlace
from .observer import Observer, storage_key
from .questions import Question, answer_of, plain
from .reached import TooMany, methods, reached
from .regions import Regions
from .sources import user_source
from .values import Value, Values


@dataclass(slots=True)
class Call:
    """One call that has run.

    Attributes:
        func: what was called, or what stands for it in the graph.
        name: for people.
        args, kwargs: with fx nodes in place of tensors.
        operands: tensors among the arguments.
        nodes: their nodes, by `id`.
        before: whether each of them needed a gradient before the call.
        result: what was returned.
        results: the tensors in it.
        written: the operand that was changed in place, with a version bump, if any.
        aten: the call was seen below autograd, which has yet to say whether its results need a gradient.
        differentiates: gradients were enabled and an operand needed one.
    """

    func: Callable[..., Any]
    name: str
    args: Any
    kwargs: Any
    operands: list[torch.Tensor]
    nodes: dict[int, fx.Node]
    before: list[bool]
    result: Any
    results: list[torch.Tensor]
    written: torch.Tensor | None
    aten: bool
    differentiates: bool


class Tape:
    """Builds the graph.

    Args:
        graph: the torch.fx graph to write.
        externals: names the tensors that exist before the run.
        observer: what the call that has just run did to memory.

    Attributes:
        values: which value each tensor object holds.
        modules: paths of the modules that are running, innermost last.
        regions: checkpoints that are running.
        looks: why the graph may be valid for this call only: lines where Python read a value, and what it read, where
            that can be asked again.
        woken: leaves that the model made for itself.
        changed: tensors from outside into which values that need a gradient were written, by node.
        exposed: memory that others than torch may write to.
        consumed: tensor objects that a custom function has used up.
        noticed: tensors of which Python read metadata, and no call their values so far.
    """

    def __init__(self, graph: fx.Graph, externals: Externals, observer: Observer) -> None:
        self.graph, self.externals, self.values = graph, externals, Values(graph)
        self.modules: list[str] = []
        self.regions = Regions()
        self.looks: list[tuple[str, Question | None]] = []
        self.woken: list[torch.Tensor] = []
        self.changed: dict[str, torch.Tensor] = {}
        self.exposed = Exposed()
        self.consumed = Consumed(self.values)
        self.noticed: dict[int, torch.Tensor] = {}
        self._seen = observer
        self._frozen: dict[int, tuple[Value, Value]] = {}
        self._casts: dict[Any, fx.Node] = {}
        self._names: dict[Any, str] = {}  # what nodes are called, by target
        self._unsettled: tuple[fx.Node, list[torch.Tensor], bool, str] | None = None

    def look(self, what: str, question: Question | None = None) -> None:
        """Note that Python read a value."""
        self.looks.append((f"{what} ({self.where()})", question))

    def notice(self, args: Any) -> None:
        """Note that Python read the metadata of these."""
        for item in args:
            if isinstance(item, torch.Tensor) and not self.values.knows(item):
                if self.externals.input_index(item) is None:  # an input's are part of the signature
                    self.noticed[id(item)] = item

    def look_behind(self, cls: type, args: tuple[Any, ...]) -> None:
        """Look for tensors of this call that a custom autograd function reaches around its arguments.

        Raises:
            CaptureError: its backward could differentiate by one of them, which is an argument as well.
        """
        operands: list[torch.Tensor] = []
        collect(args, operands)
        try:
            for tensor in reached((*methods(cls), *args)):
                passing = self.values.knows(tensor) and id(tensor) not in self.externals.objects
                if not passing and self.externals.input_index(tensor) is None:
                    continue  # the model's own: what the program reads is the same object
                if tensor.requires_grad and any(tensor is operand for operand in operands):
                    raise CaptureError(
                        f"the custom autograd function {cls.__name__} is handed a tensor that needs a gradient, and "
                        "reaches it by another argument (a closure, an object) as well",
                        where=self.where(),
                        hint="hand tensors on as arguments only; parameters of a module may be reached both ways",
                    )
                self.look(f"{cls.__name__}() reaches a tensor of this call that is no argument")
        except TooMany:
            self.look(f"{cls.__name__}() reaches too many objects to be searched")

    def read(self, what: str, call: Call) -> None:
        """Note that a call returned no tensor, but something made of tensors; of constants it always is the same."""
        if all(map(_is_constant, call.nodes.values())):
            return
        question = None
        if plain(call.result):
            node = self._node_for(call.func, call.args, call.kwargs, [], True)
            question = Question(node, call.result)
        self.look(what, question)

    def read_inside(self, what: str, call: Call) -> None:
        """Note that a recorded call read values of its operands, which decided on the shape of its results."""
        if all(map(_is_constant, call.nodes.values())):
            return
        node = self.values.current(call.results[0])[0].node if call.written is None else None
        self.look(what, Question(node, answer_of(call.results)) if node is not None else None)

    def where(self) -> str:
        """The user's line that is running, with its module."""
        path = self.modules[-1] if self.modules else ""
        source = user_source()
        return f"{path} ({source})" if path else str(source)

    # -- operands ----------------------------------------------------------------------------
    def node(self, tensor: torch.Tensor, reader: str) -> fx.Node:
        """The node of the value that a tensor object holds now; a tensor from outside is admitted."""
        self.settle()
        if self.exposed:
            self.exposed.check((storage_key(tensor),), self.where())
        if not self.values.knows(tensor) and not self._same_value(tensor):
            node = self.externals.admit(tensor, self.graph, f"{reader} at {self.where()}")
            self.values.admit(tensor, Value(node, None))
        self.consumed.check(tensor, self.where)
        value, fresh = self.values.current(tensor)
        if fresh:
            self._annotate(value.node, (TensorSpec.of(tensor),), False)
        elif tensor.requires_grad and not value.node.meta["specs"][value.output or 0].requires_grad:
            made = tensor.grad_fn.name() if tensor.grad_fn is not None else "requires_grad"
            raise self._unseen(made)
        return self.values.node(value)

    def _same_value(self, tensor: torch.Tensor) -> bool:
        """Take up an object that autograd made of a known value: a saved tensor that comes back, or its data alone."""
        # What lies in one memory in this call (slices of one tensor, buffers) need not do so in the next.
        own = self.externals.is_own(tensor) and not self.values.written(tensor)
        twin = None if own else self.values.twin(tensor)
        if twin is None:
            return False
        if twin.requires_grad == tensor.requires_grad:
            self.values.alias(tensor, twin)
        else:
            node = self.graph.call_method("detach", (self.values.node(self.values.current(twin)[0]),))
            self._annotate(node, (TensorSpec.of(tensor),), False)
            self.values.bind(tensor, Value(node, None))
        return True

    def _unseen(self, made: str) -> CaptureError:
        return CaptureError(
            f"a tensor came to need a gradient by something that was not seen ({made}): a TorchScript function, "
            "or a custom autograd function through a stored apply",
            where=self.where(),
            hint="call Python instead of the script, and MyFunction.apply(...) instead of a stored apply",
        )

    def make_leaf(self, tensor: torch.Tensor) -> None:
        """The model made this tensor require a gradient, to differentiate by it: a leaf of its own autograd graph."""
        node = self.graph.call_method("detach", (self.node(tensor, "requires_grad_"),))
        tensor.requires_grad_()
        self.woken.append(tensor)
        self._annotate(node, (TensorSpec.of(tensor),), False)
        self.values.rebind(tensor, Value(node, None))

    def freeze(self, tensor: torch.Tensor) -> None:
        """The model switches the gradient of an outside tensor off: what comes now uses its data alone."""
        node = self.node(tensor, "requires_grad_")
        value, _ = self.values.current(tensor)
        detached = self.graph.call_method("detach", (node,))
        tensor.requires_grad_(False)
        self._annotate(detached, (TensorSpec.of(tensor),), False)
        self.values.rebind(tensor, Value(detached, None))
        self._frozen[id(tensor)] = value, Value(detached, None)

    def thaw(self, tensor: torch.Tensor) -> bool:
        """The model switches a gradient on again that it had switched off; whether it had."""
        was, frozen = self._frozen.pop(id(tensor), (None, None))
        if was is None or self.values.current(tensor)[0] != frozen:  # written to since
            return False
        tensor.requires_grad_()
        self.values.rebind(tensor, was)
        return True

    def cut_off(self, tensor: torch.Tensor, node: fx.Node) -> None:
        """``detach_()``: the object goes on without its history."""
        detached = self.graph.call_method("detach", (node,))
        self._annotate(detached, (TensorSpec.of(tensor),), False)
        self.values.rebind(tensor, Value(detached, None))

    def cast(self, cast: Cast, weight: fx.Node, device: str) -> fx.Node:
        """The vertex of a weight's cast copy, shared by all calls that autocast let share it."""
        if cast.node not in self._casts:
            dtype = torch.get_autocast_dtype(device)
            node = self.graph.call_method("to", (weight, dtype))
            self._annotate(node, (replace(TensorSpec.of(cast.weight), dtype=dtype),), False)
            self._casts[cast.node] = node
        return self._casts[cast.node]

    # -- calls -------------------------------------------------------------------------------
    def record(self, call: Call) -> None:
        """Write down a call."""
        self.settle()  # a call without operands has not asked for a node
        seen, written = self._seen, call.written
        if seen.view_changed and written is not None:
            self._record_reshaping(call, written)
            return
        if written is not None and self._consumes(written, call):
            self._record_consuming(call, written)
            return
        if written is not None and not self._is_state(written, call):
            self._record_write(call, written)
            if any(id(tensor) not in call.nodes for tensor in call.results):
                raise CaptureError(
                    f"{call.name} writes in place and returns new tensors as well",
                    where=self.where(),
                    hint="split the call",
                )
            return
        result, target = call.result, call.func
        single = isinstance(result, torch.Tensor)
        flat = single or (isinstance(result, tuple | list) and all(isinstance(item, torch.Tensor) for item in result))
        if not flat:
            target = Flattened(target, call.name)
        node = self._node_for(target, call.args, call.kwargs, call.results, not single)
        # State outside of the graph is written for real, at the same place in the order of calls.
        touched = seen.writes | seen.hidden_writes
        node.meta["written"] = [call.nodes[id(t)] for t in call.operands if storage_key(t) in touched]
        if written is not None and not torch.is_grad_enabled():
            node.meta["specs"] = tuple(replace(spec, requires_grad=False) for spec in node.meta["specs"])
        for index, tensor in enumerate(call.results):
            if id(tensor) not in call.nodes and not self.values.knows(tensor):
                self.values.bind(tensor, Value(node, None if single else index))
        if call.aten:
            self._unsettled = (node, call.results, call.differentiates, call.name)

    def settle(self) -> None:
        """Ask autograd, which is done by now, which results of the last call below it need a gradient."""
        if self._unsettled is None:
            return
        node, results, differentiates, name = self._unsettled
        self._unsettled = None
        node.meta["specs"] = tuple(map(TensorSpec.of, results))
        if differentiates:
            return
        for tensor in results:
            if tensor.requires_grad and tensor.is_leaf and tensor._base is not None:
                # A view of a weight that a backward without create_graph took: it has the flag, and no history.
                with torch._C.DisableTorchFunction():
                    tensor.requires_grad_(False)
                node.meta["specs"] = tuple(map(TensorSpec.of, results))
            elif tensor.requires_grad:  # what autograd had saved comes back; anything else was made out of sight
                twin = self.values.twin(tensor)
                if twin is None or not twin.requires_grad:
                    raise self._unseen(name)
                self.values.alias(tensor, twin)

    def _record_reshaping(self, call: Call, written: torch.Tensor) -> None:
        functional = getattr(torch.Tensor, call.name.split(".")[0].removesuffix("_"), None)
        if functional is None:
            raise CaptureError(
                f"{call.name} re-shapes a tensor in place in a way pcgraph cannot follow", where=self.where()
            )
        node = self._node_for(functional, call.args, call.kwargs, [written], False)
        self.values.rebind(written, Value(node, None))

    def _consumes(self, written: torch.Tensor, call: Call) -> bool:
        """Whether a custom function has written to a value of this run and returned nothing but other tensors."""
        custom = type(call.func.func if isinstance(call.func, Autocast) else call.func) is CustomFunction
        inside = self.values.memory_of(written).base.node.op not in ("placeholder", "get_attr")
        return custom and inside and bool(call.results) and not any(id(tensor) in call.nodes for tensor in call.results)

    def _record_consuming(self, call: Call, written: torch.Tensor) -> None:
        """Write the function down as one that writes to a copy; the old objects are not used again."""
        with self._seen.aside():
            alias = self.consumed.take(written, call.operands, call.results, call.name, self.where())
        target: Any = Consuming(call.func, int(position(call.args, {}, call.nodes[id(written)])), call.name)
        single = isinstance(call.result, torch.Tensor)
        if not single and not all(isinstance(item, torch.Tensor) for item in call.result):
            target = Flattened(target, call.name)
        node = self._node_for(target, call.args, {}, call.results, not single)
        node.meta["written"] = []
        for index, tensor in enumerate(call.results):
            value = Value(node, None if single else index)
            if tensor is alias:
                self.values.write(written, value, TensorSpec.of(tensor))
            self.values.bind(tensor, value)

    def _record_write(self, call: Call, written: torch.Tensor) -> None:
        name = call.name
        memory = self.values.memory_of(written)
        base, geometry, spec = memory.base, memory.geometry, memory.spec
        was = dict(zip(map(id, call.operands), call.before, strict=True))
        learns = written.requires_grad or (call.aten and call.differentiates)
        if base.node.op in ("placeholder", "get_attr"):
            if self.externals.shared(memory.tensor):  # autograd knows which are views of each other, stand-ins do not
                raise CaptureError(
                    f"{name} writes to an argument that shares memory with another one",
                    where=self.where(),
                    hint="clone() one of them before the call",
                )
            self.changed[base.node.name] = memory.tensor
        unseen = not torch.is_grad_enabled() or not (was[id(written)] or learns)
        if spec.requires_grad and unseen:
            raise CaptureError(
                f"{name} changes the data of a value that needs a gradient behind autograd's back",
                where=self.where(),
                hint="change the value itself, with gradients enabled, or change a clone of it",
            )
        if written.dtype != spec.dtype:
            raise CaptureError(
                f"{name} writes through a view of another dtype",
                where=self.where(),
                hint="make the whole value anew (torch.complex(a, b) for z.real = a), or write to a clone()",
            )
        here = Geometry.of(written)
        region = None if here == geometry else (here.size, here.stride, here.offset - geometry.offset)
        place = position(call.args, call.kwargs, call.nodes[id(written)])
        whole = call.nodes[id(written)] if region is None else self.values.node(base)
        args, kwargs = replaced(call.args, call.kwargs, place, whole)
        node = self._node_for(InPlace(call.func, place, region, name), args, kwargs, [written], False)
        after = replace(spec, requires_grad=spec.requires_grad or learns)
        node.meta["specs"] = (after,)
        self.values.write(written, Value(node, None), after)

    def _is_state(self, tensor: torch.Tensor, call: Call) -> bool:
        """Memory from outside of the run, written without a gradient (a parameter only under `no_grad`)."""
        memory = self.values.memory_of(tensor)
        outside = memory.base.node.op in ("placeholder", "get_attr")
        learns = tensor.requires_grad or (call.aten and call.differentiates)
        return outside and (not learns or (memory.tensor.is_leaf and tensor.is_leaf and not call.aten))

    def _node_for(self, target: Any, args: Any, kwargs: Any, specs: list[torch.Tensor], multi: bool) -> fx.Node:
        name = getattr(target, "__name__", "")
        if isinstance(target, types.MethodDescriptorType) and getattr(torch.Tensor, name, None) is target:
            node = self._call("call_method", name, args, kwargs)
        elif isinstance(target, types.MethodWrapperType) and name == "__get__":
            node = self._call("call_function", getattr, (*args[:1], call_name(target)), {})
        else:
            node = self._call("call_function", target, args, kwargs)
        self._annotate(node, tuple(TensorSpec.of(tensor) for tensor in specs), multi)
        node.meta["random"] = self._seen.random
        node.meta["constant"] &= not self._seen.random
        return node

    def _call(self, kind: str, target: Any, args: Any, kwargs: Any) -> fx.Node:
        """A node of the graph. Its arguments are given afterwards: torch would search them for symbols, at length."""
        try:
            name = self._names.get(target)
            if name is None:
                name = self._names[target] = self.graph._target_to_str(target)
        except TypeError:  # not hashable
            name = None
        node = self.graph.create_node(kind, target, name=name)
        node.args = args
        if kwargs:
            node.kwargs = kwargs
        return node

    def _annotate(self, node: fx.Node, specs: tuple[TensorSpec, ...], multi: bool) -> None:
        node.meta["specs"] = specs
        node.meta["multi"] = multi
        node.meta["constant"] = all(map(_is_constant, node.all_input_nodes))
        node.meta["module_path"] = self.modules[-1] if self.modules else ""
        node.meta["source"] = user_source()
        node.meta["checkpoint"] = self.regions.current


def _is_constant(node: fx.Node) -> bool:
    """Whether a value is made of nothing from outside and of no random numbers."""
    if node.meta.get("item"):
        node = node.args[0]  # type: ignore[assignment]
    return bool(node.meta.get("constant", False))


def call_name(func: Any) -> str:
    """What a call is called: ``relu``, ``shape`` for the property's getter, ``aten.mul.Tensor``."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return str(name)
