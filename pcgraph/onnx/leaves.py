"""Where weights become parameters and buffers of the module, each once, however many nodes use it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn

from .names import Names, dotted, variable
from .places import Within
from .steps import Permute, Step, Steps, simplified
from .values import Leaf, Use, Weight


@dataclass(frozen=True)
class Origin:
    """Where a parameter or buffer comes from.

    Attributes:
        initializer: its name in the file.
        steps: what was done to it.
        use: the operand that it was copied for, if the file has one tensor where the module has several.
        within: the graph in which the initializer lies; None if that is a local function, or none of the file's.
    """

    initializer: str
    steps: Steps
    use: Use | None
    within: Within | None = ()


class Leaves:
    """Parameters and buffers below one root, and the fx nodes that read them."""

    def __init__(self, root: nn.Module, graph: fx.Graph) -> None:
        self.root, self.graph, self.names = root, graph, Names()
        self.origins: dict[str, Origin] = {}
        self._placed: dict[Weight, tuple[Steps, str, torch.Tensor]] = {}
        self._nodes: dict[str, fx.Node] = {}

    def fits(self, leaf: Leaf, *steps: Step) -> bool:
        """Whether a module may own the weight after these steps: a tied one has one layout, and is never cut."""
        weight = leaf.weight
        if not weight.trainable:
            return True
        wanted = simplified((*leaf.steps, *steps))
        if weight in self._placed:
            return self._placed[weight][0] == wanted
        return not weight.shared or all(isinstance(step, Permute) for step in wanted)

    def own(self, leaf: Leaf, path: str, *steps: Step, buffer: bool = False) -> torch.Tensor:
        """The parameter (or buffer) of a module at this path; the module registers it."""
        weight, wanted = leaf.weight, simplified((*leaf.steps, *steps))
        if not buffer and weight.trainable and weight in self._placed:
            known, _, tensor = self._placed[weight]
            if known == wanted:
                return tensor
        made = _copy(leaf.then(*steps).tensor)
        tensor = made if buffer or not made.is_floating_point() else nn.Parameter(made, requires_grad=weight.trainable)
        if weight.initializer:
            self.origins[path] = Origin(weight.name, wanted, weight.use, weight.within)
        if not buffer and not any(not isinstance(step, Permute) for step in wanted):
            self._placed.setdefault(weight, (wanted, path, tensor))
        return tensor

    def node(self, leaf: Leaf) -> fx.Node:
        """The leaf as a value of the graph: an attribute, permuted if it lies there in another order."""
        weight = leaf.weight
        if weight not in self._placed:
            path = self.names.take(dotted(weight.name))
            self._register(path, self.own(Leaf(weight), path, buffer=not weight.trainable))
            self._placed.setdefault(weight, ((), path, torch.empty(0)))
        steps, path, _ = self._placed[weight]
        if path not in self._nodes:
            with self.graph.inserting_before(self._first()):
                self._nodes[path] = self.graph.create_node("get_attr", path, name=variable(path.replace(".", "_")))
        node = self._nodes[path]
        back = [_inverse(step) for step in reversed(steps) if isinstance(step, Permute)]
        for step in simplified((*back, *leaf.steps)):
            assert isinstance(step, Permute)
            node = self.graph.call_method("permute", (node, step.order))
        return node

    def _first(self) -> fx.Node | None:
        """The first node that is neither input nor attribute: attributes are read where the code begins."""
        return next((node for node in self.graph.nodes if node.op not in ("placeholder", "get_attr")), self._end())

    def _end(self) -> fx.Node:
        return self.graph._root

    def _register(self, path: str, tensor: torch.Tensor) -> None:
        *scopes, name = path.split(".")
        owner = self.container(".".join(scopes))
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(name, tensor)
        else:
            owner.register_buffer(name, tensor)

    def container(self, path: str) -> nn.Module:
        """The plain module at a path, made if it is not there."""
        module = self.root
        for part in filter(None, path.split(".")):
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module

    def add_module(self, path: str, module: nn.Module) -> None:
        """Register a module at a path that `names` has given."""
        *scopes, name = path.split(".")
        self.container(".".join(scopes)).add_module(name, module)


def _inverse(step: Permute) -> Permute:
    order = [0] * len(step.order)
    for new, old in enumerate(step.order):
        order[old] = new
    return Permute(tuple(order))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in memory of their own, in order."""
    return tensor.clone(memory_format=torch.contiguous_format)
