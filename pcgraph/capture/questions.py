"""Questions: what Python read from tensors while the model ran (``if mask.all():``, ``x[mask]``), and the answers.

The graph is right for every call that gives the same answers. So before a graph is used again, the few vertices that a
question depends on are evaluated on the new inputs, and the answers compared. A question that depends on too much, on
random numbers or on something that the run changes cannot be asked beforehand: such a graph is good for one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import fx

from .asking import Place, Step, emit
from .externals import External
from .mutation import tensors_in, users_code
from .observer import storage_key

LIMIT = 64  # vertices that are evaluated for all questions together
REMEMBERED = 1 << 16  # elements of all tensors that are kept to see whether the same is asked again


@dataclass(frozen=True)
class Question:
    """Something read.

    Attributes:
        node: the call that read it.
        answer: what it returned; of tensors, their shapes and places in memory.
    """

    node: fx.Node
    answer: Any


class Questions:
    """Asks all questions of one run.

    Args:
        questions: in the order in which they came up.
        externals: what the graph reads from outside, by node.

    Raises:
        ValueError: some question cannot be asked beforehand.
    """

    def __init__(self, questions: Sequence[Question], externals: Mapping[str, External]) -> None:
        answers = {question.node: question.answer for question in questions}
        nodes = _needed(answers)
        _refuse_changing(nodes, externals)
        places = {node: index for index, node in enumerate(nodes)}
        self._sources: list[tuple[Any, int | None]] = []  # a tensor, or the place of an input
        steps: list[Step] = []
        of_inputs: set[fx.Node] = set()
        for node in nodes:
            if node.op in ("placeholder", "get_attr"):
                external = externals[node.name]
                self._sources.append((external.tensor, external.input_index))
                if external.input_index is not None:
                    of_inputs.add(node)
                continue
            if not of_inputs.isdisjoint(node.all_input_nodes):
                of_inputs.add(node)
                if _is_float(answers.get(node)):
                    raise ValueError  # hardly ever the same twice
            put = cast("Callable[[fx.Node], Any]", lambda n: Place(places[n]))
            args, kwargs = cast("Any", fx.node.map_arg((node.args, node.kwargs), put))
            learns = any(spec.requires_grad for spec in node.meta.get("specs", ()))
            answer = (answers[node],) if node in answers else ()
            steps.append(Step(node.target, args, kwargs, learns, answer))
        self._ask = emit(steps, len(self._sources), lambda value, answer: same(answer_of(value), answer))
        # Most masks are the same at every call: comparing them is cheaper than asking again.
        self._memorable = all(plain(answer) for answer in answers.values())
        # Values and places in memory (which a view of a view tells), together: another thread may ask as well.
        self._asked: tuple[list[torch.Tensor], list[Any]] | None = None

    def same_answers(self, inputs: Sequence[torch.Tensor]) -> bool:
        """Whether a call with these inputs would read the same."""
        values = [tensor if place is None else inputs[place] for tensor, place in self._sources]
        try:
            asked = self._asked
            # Autocast decides nothing here: only whole numbers are remembered, which it does not cast.
            if asked is not None and all(map(torch.equal, values, asked[0])) and asked[1] == _offsets(values):
                return True
        except Exception:  # the run will raise it, where it belongs
            return False
        if torch._C._is_any_autocast_enabled():  # a call that was cast says so itself
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                return self._ask_again(values)
        return self._ask_again(values)

    def _ask_again(self, values: Sequence[torch.Tensor]) -> bool:
        try:
            right = self._ask(*values)
        except Exception:
            return False
        if right and self._memorable and _told_by_value(values):
            self._asked = [value.detach().clone() for value in values], _offsets(values)
        return right


def _offsets(tensors: Sequence[torch.Tensor]) -> list[Any]:
    return [tensor.storage_offset() for tensor in tensors]


def _told_by_value(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether tensors that `torch.equal` calls equal give the same answers: few plain numbers, and no -0.0 or NaN."""
    plain = all(type(t) is torch.Tensor and t.layout is torch.strided and not t.is_nested for t in tensors)
    exact = not any(t.is_floating_point() or t.is_complex() or t.is_quantized for t in tensors)
    return plain and exact and sum(t.numel() for t in tensors) <= REMEMBERED


def _needed(answers: Mapping[fx.Node, Any]) -> list[fx.Node]:
    """The nodes that answers depend on: those from outside, then the others in the order of the graph."""
    found: set[fx.Node] = set()
    stack = list(answers)
    while stack:
        node = stack.pop()
        if node in found:
            continue
        found.add(node)
        if len(found) > LIMIT:
            raise ValueError
        if node.op not in ("placeholder", "get_attr"):
            if node.meta.get("random") or node.meta.get("written") or users_code(node.target) is not None:
                raise ValueError
            stack.extend(node.all_input_nodes)
    graph = next(iter(answers)).graph
    inside = [node for node in graph.nodes if node in found]
    return sorted(inside, key=lambda node: node.op not in ("placeholder", "get_attr"))


def _refuse_changing(nodes: Sequence[fx.Node], externals: Mapping[str, External]) -> None:
    """Refuse questions about memory that the run writes to: by the time of the next call it has changed."""
    written: set[str] = set()
    stack = [source for node in nodes[0].graph.nodes for source in node.meta.get("written", ())]
    while stack:  # a view of outside memory leads there
        node = stack.pop()
        if node.name not in written:
            written.add(node.name)
            stack.extend(node.all_input_nodes)
    memory = {_memory(externals[name]) for name in written if name in externals}
    for node in nodes:
        if node.name in written or (node.name in externals and _memory(externals[node.name]) in memory):
            raise ValueError


def _memory(external: External) -> int | None:
    """Identity of the memory; inputs count as one, since what they share in another call is not known."""
    return None if external.tensor is None else storage_key(external.tensor)


def answer_of(result: Any) -> Any:
    """What is compared: a Python value itself, of tensors where they lie."""
    tensors = tensors_in(result)
    return [_geometry(tensor) for tensor in tensors] if tensors else result


def _geometry(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Shape and, where it has one, the place in memory: a view at another index is another view."""
    if tensor.layout is not torch.strided:
        return (tuple(tensor.shape),)
    return (tuple(tensor.shape), tensor.stride(), tensor.storage_offset())


def plain(answer: Any) -> bool:
    """Whether an answer is a value, and can be compared."""
    if isinstance(answer, list | tuple):
        return all(map(plain, answer))
    return answer is None or isinstance(answer, bool | int | float | complex | str)


def _is_float(answer: Any) -> bool:
    return any(map(_is_float, answer)) if isinstance(answer, list | tuple) else isinstance(answer, float | complex)


def same(a: Any, b: Any) -> bool:
    """Equality of answers; a NaN equals a NaN, 0.0 is not -0.0.

    >>> same([1, float("nan")], [1, float("nan")]), same(0.0, -0.0), same(1, True)
    (True, False, False)
    """
    return type(a) is type(b) and repr(a) == repr(b)
