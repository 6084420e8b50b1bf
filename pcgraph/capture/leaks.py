"""What a capture must not lose sight of: tensors that leave by another way, writes that nobody saw, stale values."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils._pytree import SUPPORTED_NODES, register_dataclass, tree_flatten

from ..errors import CaptureError
from .exposed import refused
from .opened import Opened
from .purity import HOOKS
from .pystate import PythonState
from .recorder import Recorder


def refuse_effects(state: PythonState) -> None:
    """Raise for an effect that a compiled program could not repeat.

    Raises:
        CaptureError: random numbers were reseeded, a global setting of torch's changed, or a node of the run's own
            autograd graph was hooked.
    """
    for reason in state.reasons:
        if reason.startswith(f"calls {HOOKS}"):
            raise CaptureError(
                f"the model {reason.partition(' (')[0]} inside forward: a compiled network has no such node",
                where=reason.partition(" (")[2].rstrip(")"),
                hint="tensor.register_hook() sees the same gradient",
            )
    if state.changed_settings is not None:
        raise CaptureError(
            f"the model changes a global setting of torch while it runs ({state.changed_settings})",
            hint="change it around the call",
        )
    if state.reseeded is not None:
        raise CaptureError(
            f"the model sets the state of torch's random numbers while it runs ({state.reseeded})",
            hint="seed before the call, or give the operation a torch.Generator of its own",
        )


_byte_bounds: Any = getattr(np.lib, "array_utils", np).byte_bounds  # where NumPy 2 has it, and where 1 had


def refuse_shared_arrays(state: PythonState, memories: Mapping[int, torch.UntypedStorage]) -> None:
    """Raise if the run wrote to a NumPy array in the memory of a tensor that the graph reads.

    Raises:
        CaptureError: names the array.
    """
    for array, name in state.changed_arrays():
        begin, end = _byte_bounds(array)
        for storage in memories.values():
            if (
                storage.device.type == "cpu"
                and begin < storage.data_ptr() + storage.nbytes()
                and storage.data_ptr() < end
            ):
                raise refused(f"array {name}")


def kept_tensors(recorder: Recorder, returned: list[Any]) -> list[tuple[torch.Tensor, fx.Node, bool]]:
    """Tensors that need a gradient and that somebody besides the return value cares for after the run.

    Such a tensor (an auxiliary loss on the model, a hook's list, a hidden state kept for the next call, a value with
    a hook) hangs on the tape's own autograd graph, and has to become an output of the network.

    Args:
        recorder: after the run.
        returned: a list that is the only holder of the model's return value.

    Returns:
        Tensor, node that made it, and whether it is still held; in the order in which the tensors were made.
    """
    leaked = _leaked(recorder, returned)
    if leaked:
        gc.collect()  # what only a dead cycle holds is not held
        leaked = _leaked(recorder, returned)
    held = {id(tensor) for tensor in leaked}
    return [
        (tensor, value.node, id(tensor) in held)
        for tensor, value, _ in recorder.tape.values.tensors()
        if id(tensor) in held or id(tensor) in recorder.held
    ]


def open_dataclasses(returned: list[Any]) -> None:
    """Make the dataclasses in a return value known to torch's pytrees, so that their tensors are seen."""
    while True:
        classes = {type(leaf) for leaf in tree_flatten(returned)[0] if dataclasses.is_dataclass(leaf)}
        if not classes:
            return
        for cls in classes:
            register_dataclass(cls)


def refuse_kept_leaves(recorder: Recorder, returned: list[Any], inputs: dict[int, int]) -> None:
    """Raise if the model keeps a leaf of the run's own autograd graph: its gradient would never arrive there.

    Args:
        recorder: after the run.
        returned: a list that is the only holder of the model's return value.
        inputs: references to each tensor that stands for an input, by `id`, before the run.

    Raises:
        CaptureError: names the input or the line.
    """
    if _kept_leaf(recorder, returned, inputs) is None:
        return
    gc.collect()  # what only a dead cycle holds is not held
    node = _kept_leaf(recorder, returned, inputs)
    if node is not None:
        raise CaptureError(
            "the model keeps or returns a tensor whose gradient would arrive somewhere else: "
            "an input that needs one, or a leaf that it made",
            vertex=str(node.name),
            where=str(node.meta.get("source") or node.meta.get("module_path")),
            hint="keep or return tensor.detach()",
        )


def _kept_leaf(recorder: Recorder, returned: list[Any], inputs: dict[int, int]) -> fx.Node | None:
    in_result = _references(returned)
    woken = Counter(id(tensor) for tensor in recorder.tape.woken)
    also = Counter(id(tensor) for tensor in recorder.tape.changed.values()) + Counter(recorder.held.keys()) + woken
    for tensor, value, held in recorder.tape.values.tensors():
        if not tensor.requires_grad or not (id(tensor) in inputs or id(tensor) in woken):
            continue
        expected = held + also[id(tensor)] + in_result[id(tensor)]
        expected += inputs.get(id(tensor), 2)  # among them the loop's variable and the argument of getrefcount
        expected += tensor._use_count() > 1  # type: ignore[attr-defined]  # one that stands for all of C++'s
        if sys.getrefcount(tensor) > expected or (in_result[id(tensor)] and woken[id(tensor)]):
            return value.node
    return None


def _references(returned: list[Any]) -> Counter[int]:
    """How many references to each object the return value holds: a `ModelOutput` holds its tensors twice."""
    found: Counter[int] = Counter()
    stack: list[Any] = [returned]
    seen: set[int] = set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        for held in gc.get_referents(item):
            if isinstance(held, torch.Tensor):
                found[id(held)] += 1
            elif isinstance(held, dict | list | tuple | Opened) or type(held) in SUPPORTED_NODES:
                stack.append(held)
            elif dataclasses.is_dataclass(held) and not isinstance(held, type):
                stack.append(held)
    return found


def _leaked(recorder: Recorder, returned: list[Any]) -> list[torch.Tensor]:
    in_result = _references(returned)
    found = []
    for tensor, value, held in recorder.tape.values.tensors():
        outside = value.node.op in ("placeholder", "get_attr")
        if outside or id(tensor) in recorder.externals.objects or not _carries_gradient(tensor):
            continue
        # Two more: the loop's variable and the argument of getrefcount. And one that stands for all of C++'s.
        held += (tensor._use_count() > 1) + (id(tensor) in recorder.held)  # type: ignore[attr-defined]
        if sys.getrefcount(tensor) > held + in_result[id(tensor)] + 2:
            found.append(tensor)
    return found


def _carries_gradient(tensor: torch.Tensor) -> bool:
    try:
        return tensor.requires_grad and not tensor.is_leaf
    except RuntimeError:  # one of several views whose base was written: autograd lets nobody use it any more
        return False


def stale_values(outputs: list[torch.Tensor]) -> str | None:
    """Autograd's own complaint if a value that learning needs was written after it was used, else None.

    The run's autograd graph holds version counters of everything it saved; reading a saved value checks them.
    """
    stack: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        stack.extend(child for child, _ in node.next_functions)
        for name in dir(type(node)):
            if name.startswith("_saved_"):
                try:
                    getattr(node, name)
                except RuntimeError as error:
                    if "modified by an inplace operation" in str(error):
                        return str(error)
    return None
