"""muPC: a model scaled so that predictive coding trains it however deep it is.

A network's energy is badly conditioned when it is deep. With weights of variance 1 and each weighted vertex multiplied
by a factor of its fan-in N and, on a residual branch, of the number L of residual blocks, signals neither grow nor
vanish over depth, at initialisation and while training (Innocenti, Achour, Buckley 2025, arXiv 2505.13124, table 1).
A factor a in front of a weight of variance 1 is the same as a weight of variance a^2 that learns at another rate: a
times for Adam and its like, whose steps do not depend on the gradient's size, and a^2 times for gradient descent. So
nothing is put into the model, and every rule runs on it as it is.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from .compiler import compile
from .errors import PCGraphError
from .graph import PCGraph, Ref, Role, Vertex

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def mupc(
    model: nn.Module, inputs: Any, *, lr: float, optimizer: Literal["adam", "sgd"] = "adam"
) -> list[dict[str, Any]]:
    """Initialise a model in place by muPC, and give the parameter groups that it learns with.

    With fan-in N and L residual additions in the whole model the factor of a linear or convolutional layer is
    ``1/sqrt(N)``, on a residual branch ``1/sqrt(N L)``, and ``1/N`` in the layer before the outputs. Weights are drawn
    from a normal distribution of that width, biases become 0. Other parameters stay as they are.

    Args:
        model: any that can be compiled, with residual connections (additions of a value and of what was made of it).
        inputs: the argument of a call, to find its graph; a tuple of several, or a dict of keyword arguments.
        lr: learning rate of what is not scaled; of a weight with factor a it is ``lr * a``, or ``lr * a**2``.
        optimizer: ``"adam"`` for all whose steps do not grow with the gradient, ``"sgd"`` for plain descent.

    Returns:
        Groups for ``torch.optim``, one for each weight with its ``name`` and ``factor``, and one for all the rest.

    Raises:
        PCGraphError: no layer can be scaled, or the optimizer is none of these.
        CaptureError: the model cannot be compiled.

    >>> import torch, pcgraph
    >>> model = torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    >>> groups = pcgraph.mupc(model, torch.randn(3, 16), lr=0.1)
    >>> [(group["name"], group["lr"]) for group in groups]
    [('0.weight', 0.025), ('2.weight', 0.025), ('', 0.1)]
    >>> optimizer = torch.optim.Adam(groups)
    """
    if optimizer not in ("adam", "sgd"):
        raise PCGraphError(f"optimizer={optimizer!r} is not known", hint="use 'adam' or 'sgd'")
    args, kwargs = (
        ((), inputs) if isinstance(inputs, dict) else (inputs if isinstance(inputs, tuple) else (inputs,), {})
    )
    factors = factors_of(compile(model).prepare(*args, **kwargs).graph)
    modules = model.named_modules()
    layers = {f"{path}.weight".lstrip("."): layer for path, layer in modules if isinstance(layer, _LAYERS)}
    found = {name: factor for name, factor in factors.items() if name in layers}
    if not found:
        raise PCGraphError(
            "no linear or convolutional layer was found in the graph",
            hint="a weight that is parametrised, or used as a plain parameter, is not scaled",
        )
    groups: list[dict[str, Any]] = []
    for name, factor in found.items():
        layer = layers[name]
        nn.init.normal_(layer.weight, std=factor)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        rate = lr * (factor if optimizer == "adam" else factor**2)
        groups.append({"params": [layer.weight], "lr": rate, "name": name, "factor": factor})
    scaled = {id(group["params"][0]) for group in groups}
    rest = [p for p in model.parameters() if id(p) not in scaled and p.requires_grad]
    return [*groups, {"params": rest, "lr": lr, "name": "", "factor": 1.0}] if rest else groups


def factors_of(graph: PCGraph) -> dict[str, float]:
    """The factor of every weight in the graph, by name; of a weight that is used twice the smaller one."""
    branches, blocks = _branches(graph)
    last = _last(graph)
    factors: dict[str, float] = {}
    for vertex in graph.vertices.values():
        weight = _weight(graph, vertex)
        if weight is None or vertex.name not in graph.depth:
            continue
        fan_in = _fan_in(weight)
        if vertex.name in last:
            factor = 1 / fan_in
        else:
            factor = (fan_in * (blocks if vertex.name in branches else 1)) ** -0.5
        factors[weight.module_path] = min(factor, factors.get(weight.module_path, factor))
    return factors


def _weight(graph: PCGraph, vertex: Vertex) -> Vertex | None:
    """The weight of a linear or convolutional vertex, its second operand."""
    if vertex.operation is None or len(vertex.operands) < 2:
        return None
    name = vertex.operation.name
    if name != "linear" and not name.startswith("conv"):
        return None
    weight = graph[vertex.operands[1].vertex]
    return weight if weight.role is Role.PARAMETER and len(weight.outputs) == 1 else None


def _fan_in(weight: Vertex) -> int:
    spec = weight.outputs[0]
    assert spec is not None
    size = 1
    for length in spec.shape[1:]:
        size *= int(length)
    return max(size, 1)


def _branches(graph: PCGraph) -> tuple[set[str], int]:
    """The vertices on residual branches, and how many residual additions there are."""
    inside: set[str] = set()
    blocks = 0
    for vertex in graph.vertices.values():
        if vertex.operation is None or not vertex.operation.name.startswith("add") or vertex.name not in graph.depth:
            continue
        ends = [ref.vertex for ref in vertex.operands if graph.carries_error(ref) and _moves(graph, ref)]
        if len(ends) != 2:
            continue
        for skip, branch in (ends, ends[::-1]):
            between = _between(graph, skip, branch)
            if between:
                inside |= between
                blocks += 1
    return inside, max(blocks, 1)


def _between(graph: PCGraph, start: str, end: str) -> set[str]:
    """Vertices on paths from `start` to `end`, without `start`; empty if there is none."""
    reached, ahead = {end}, [end]
    while ahead:
        for ref in graph[ahead.pop()].operands:
            name = ref.vertex
            # Only what lies above the start can lead to it.
            if name in reached or name not in graph.depth or graph.depth[name] > graph.depth[start]:
                continue
            reached.add(name)
            if name != start:
                ahead.append(name)
    if start not in reached or start == end:
        return set()
    onto = {start}
    for name in sorted(reached - {start}, key=lambda n: -graph.depth[n]):
        if any(ref.vertex in onto for ref in graph[name].operands):
            onto.add(name)
    return onto - {start} if end in onto else set()


def _last(graph: PCGraph) -> set[str]:
    """Weighted vertices from which an output is reached without another one."""
    found: set[str] = set()
    seen: set[str] = set()
    ahead = [ref.vertex for ref in graph.outputs if ref.vertex in graph.depth]
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen.add(name)
        if _weight(graph, graph[name]) is not None:
            found.add(name)
            continue
        ahead += [ref.vertex for ref in graph[name].operands if ref.vertex in graph.depth and _moves(graph, ref)]
    return found


def _moves(graph: PCGraph, ref: Ref) -> bool:
    return graph[ref.vertex].role is not Role.PARAMETER
