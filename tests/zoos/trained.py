"""More of one model: optimizer steps in both modes and with other batch sizes, float64, and slow inference.

`judge` compares two steps in training mode. What is compared here holds between calls: programs that are kept for
weights that have moved, for a mode that was left and entered again, for a batch size that came before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import pcgraph
from tests.zoos.observe import gap, step
from tests.zoos.specimen import Call, Specimen, leaves, seed_all

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
}
SIZES = (2, 3, 2)  # of the batches, one a step
RULE = pcgraph.IL(gamma=0.01, steps=5)
SIMULATED = 20_000  # evaluations of a vertex up to which a model is simulated, so that it takes seconds
APART = 1e-9  # simulation adds in another order


def trained(specimen: Specimen, model: nn.Module, call: Callable[..., Call]) -> tuple[list[str], list[str]]:
    """What was compared and is equal, and what differs.

    Args:
        specimen: the model's entry.
        model: copied, never changed.
        call: seed, size -> arguments.
    """
    done, wrong = [], []
    for name, make in OPTIMIZERS.items():
        if found := _optimized(specimen, model, call, make):
            wrong += [f"{name}, {line}" for line in found]
        else:
            done.append(name)
    try:
        wide = _double(copy.deepcopy(model))
        step(wide, wide, _double(call(0, size=2)), specimen.loss, 0)
    except Exception:  # not written for float64
        return done, wrong
    if found := _optimized(specimen, _double(copy.deepcopy(model)), lambda *a, **k: _double(call(*a, **k)), None):
        wrong += [f"float64, {line}" for line in found]
    else:
        done.append("float64")
    _simulated(_double(copy.deepcopy(model)).eval(), _double(call(7, size=2)), done, wrong)
    return done, wrong


def _optimized(
    specimen: Specimen, model: nn.Module, call: Callable[..., Call], make: Callable[..., Any] | None
) -> list[str]:
    """Training mode, evaluation mode and training mode again; the first difference of each step."""
    twins = [copy.deepcopy(model) for _ in range(2)]
    optimizers = [make(list(twin.parameters())) if make else None for twin in twins]
    callables: list[Callable[..., Any]] = [twins[0], pcgraph.compile(twins[1])]
    found = []
    for k, (train, size) in enumerate([(mode, size) for mode in (True, False, True) for size in SIZES]):
        seen = []
        for run, twin, optimizer in zip(callables, twins, optimizers, strict=True):
            twin.train(train)
            try:
                seen.append(step(run, twin, call(100 + k, size=size), specimen.loss, 100 + k, optimizer))
            except Exception:
                if run is twin:  # plain autograd cannot do this (a mode that returns no gradient)
                    break
                raise
        if len(seen) == 2 and (names := gap(*seen).names):
            found.append(f"step {k}, {'training' if train else 'evaluation'}, batch of {size}: {names[0]}")
    return found


def _simulated(model: nn.Module, arguments: Call, done: list[str], wrong: list[str]) -> None:
    """Simulation of Z-IL against autograd, and compiled inference learning against its simulation."""
    args, kwargs = arguments
    try:
        seed_all(1)
        squares(model(*args, **kwargs)).backward()
    except Exception:  # evaluation mode returns something else
        return
    plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    network = pcgraph.compile(model)
    seed_all(1)
    network.prepare(*args, **kwargs)
    if len(network.graph.vertices) * network.graph.steps > SIMULATED:
        return
    specs = [spec for vertex in network.graph.vertices.values() for spec in vertex.outputs if spec is not None]
    if any(spec.requires_grad and spec.dtype == torch.float32 for spec in specs):
        return  # the model rounds to float32 in between (a softmax in it): nothing to compare to the ninth digit
    for name, rule in (("Z-IL", None), ("IL", RULE)):
        seed_all(1)
        try:
            trace = network.simulate(*args, loss=squares, rule=rule, **kwargs)
            if rule is not None:
                seed_all(1)
                inputs = kwargs if kwargs and not args else args
                network.learn(inputs, None, _squares_of, rule)
                plain = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        except pcgraph.PCGraphError as error:
            done.append(f"{name}: refused: {str(error).splitlines()[0]}")
            continue
        for path in sorted(plain.keys() | trace.gradients.keys()):
            one, two = plain.get(path), trace.gradients.get(path)
            zero = torch.zeros(())
            apart = float(((zero if one is None else one) - (zero if two is None else two)).abs().max())
            scale = max(1.0, *(float(g.abs().max()) for g in plain.values() if g.numel()))
            if not apart <= APART * scale:
                wrong.append(f"{name}, simulated: the gradient of {path} differs by {apart:.1e}")
        if not any(line.startswith(name) for line in wrong):
            done.append(name)


def squares(output: Any) -> Tensor:
    """A loss that draws nothing and reads no state: weighted squares of everything that learns."""
    total = None
    for _, y in leaves(output):
        if isinstance(y, Tensor) and y.requires_grad and y.numel():
            y = torch.view_as_real(y) if y.is_complex() else y
            ramp = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
            term = (ramp * y * y).mean()
            total = term if total is None else total + term
    if total is None:
        raise RuntimeError("no output needs a gradient")
    return total


def _squares_of(output: Any, _: None) -> Tensor:
    return squares(output)


def _double(tree: Any) -> Any:
    if isinstance(tree, nn.Module):
        return tree.double()
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            return tree.detach().double().requires_grad_(tree.requires_grad)
        return tree.to(torch.complex128) if tree.is_complex() else tree
    if isinstance(tree, dict):
        return {key: _double(value) for key, value in tree.items()}
    return type(tree)(map(_double, tree)) if isinstance(tree, (list, tuple)) else tree
