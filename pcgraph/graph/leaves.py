"""The leaves of a vertex's own little autograd graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .vertex import Operation


def leaf_for(operation: Operation, operand: torch.Tensor) -> torch.Tensor:
    """What an operation is evaluated on to learn: its operand, cut off from where that comes from.

    A custom function may reach a parameter by another way as well (a module among its arguments), and differentiate
    by the one that it has saved. They must be one object, so that a leaf stays what it is.
    """
    if operation.opaque is not None and operand.requires_grad and operand.is_leaf:
        return operand
    return operand.detach().requires_grad_()


@contextmanager
def hooks_off(leaves: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> Iterator[None]:
    """Keep quiet the hooks of leaves, which are for whole gradients; the user's own backward still fires them."""
    hooks = {id(leaf): (leaf, leaf._backward_hooks) for leaf in leaves if leaf._backward_hooks}

    def fire(on: bool) -> None:
        for leaf, own in hooks.values():
            leaf._backward_hooks = own if on else None

    nodes = {result.grad_fn for result in results if result.grad_fn is not None} if hooks else set()
    handles = [node.register_prehook(lambda _: fire(True)) for node in nodes]
    handles += [node.register_hook(lambda *_: fire(False)) for node in nodes]
    fire(False)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        fire(True)
