"""Which torch calls read only what a signature fixes (shapes, dtypes), and which pcgraph refuses to record."""

from __future__ import annotations

import sys
from typing import Any

import torch

from ..errors import CaptureError
from .mutation import Geometry
from .observer import storage_key

_METHODS = {
    "size", "dim", "ndimension", "stride", "numel", "nelement", "__len__", "is_floating_point", "is_complex",
    "is_contiguous", "is_inference", "is_signed", "is_conj", "is_neg", "is_pinned", "is_set_to", "is_shared",
    "is_same_size", "get_device", "element_size", "dense_dim", "sparse_dim", "has_names", "__hash__",
    "__dir__", "result_type", "can_cast", "promote_types", "is_tensor", "is_storage", "type", "_is_view",
    "_set_grad_enabled", "_has_compatible_shallow_copy_type", "is_grad_enabled", "get_default_dtype", "is_coalesced",
    "__deepcopy__", "__subclasscheck__", "_get_tracing_state", "dim_order", "is_distributed", "broadcast_shapes",
}  # fmt: skip
_PROPERTIES = {
    "shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "grad_fn", "layout", "is_cuda", "is_cpu", "is_mps",
    "is_xpu", "is_meta", "is_sparse", "is_sparse_csr", "is_quantized", "is_nested", "is_mkldnn", "is_ipu", "is_xla",
    "is_vulkan", "is_maia", "is_mtia", "is_hpu", "name", "names", "itemsize", "nbytes", "output_nr",
    "_backward_hooks", "_post_accumulate_grad_hooks", "retains_grad", "_base", "_has_symbolic_sizes_strides",
}  # fmt: skip
_ASKS = {"_is_view", "is_inference", "is_shared", "is_pinned"}
_OF_NODES = {"grad_fn", "output_nr", "name"}
_HISTORY = _OF_NODES | {"_base", "retains_grad", "_backward_hooks", "_post_accumulate_grad_hooks"}
_UNSEEN = {"apply_", "map_", "map2_"}  # they change memory by calls of Python, of which torch tells nobody
_FAST = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer)
_known: dict[Any, bool] = {}


def is_metadata(func: Any) -> bool:
    """Whether a call reads nothing but metadata, so that it need not be recorded.

    >>> is_metadata(torch.Tensor.size), is_metadata(torch.Tensor.item)
    (True, False)
    """
    try:
        return _known[func]
    except KeyError:
        pass
    except TypeError:  # not hashable
        return False
    name = getattr(func, "__name__", "")
    if name == "__get__":
        result = getattr(getattr(func, "__self__", None), "__name__", "") in _PROPERTIES
    else:
        result = name in _METHODS
    _known[func] = result
    return result


def attribute_set(func: Any) -> str | None:
    """Which attribute of a tensor a call sets or deletes (``weight.grad = None``)."""
    return _attribute(func) if getattr(func, "__name__", "") in ("__set__", "__delete__") else None


def asks_for_history(func: Any, tensor: Any) -> bool:
    """Whether a call asks for what no signature says of a tensor, and what stands in for an input does not know.

    Where it comes from (a view of what, made by which function), who hooked it, and which memory it lies in.
    """
    name = getattr(func, "__name__", "")
    if name != "__get__":
        return name in _ASKS
    asked = _attribute(func)
    return asked in _HISTORY and not (asked in _OF_NODES and tensor.is_leaf)  # a leaf has no function; that is known


def flags(func: Any, args: Any, kwargs: Any) -> bool | None:
    """What a call sets ``requires_grad`` of a tensor to, or None if it does not change it."""
    name = getattr(func, "__name__", "")
    if name == "requires_grad_":
        wanted = kwargs.get("requires_grad", args[1] if len(args) > 1 else True)
    elif name == "__set__" and _attribute(func) == "requires_grad":
        wanted = args[1]
    else:
        return None
    if torch._C._functorch.is_functorch_wrapped_tensor(args[0]):
        return None
    if bool(wanted) == args[0].requires_grad or not (args[0].is_leaf):  # torch has its say on what is no leaf
        return None
    return bool(wanted)


def _one_place(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two tensor objects show the same entries of the same memory."""
    if one.layout is not torch.strided or two.layout is not torch.strided or one.dtype != two.dtype:
        return False
    return storage_key(one) == storage_key(two) and Geometry.of(one) == Geometry.of(two)


def refusal(func: Any, operands: list[torch.Tensor]) -> tuple[str, str] | None:
    """What is wrong with recording this call and what to do, or None if it can be recorded."""
    name = getattr(func, "__name__", "")
    if name == "backward" and getattr(func, "__module__", "").startswith("torch"):
        return (
            "the model calls backward() inside forward",
            "use torch.autograd.grad(..., create_graph=True), which returns the gradients instead of storing them",
        )
    elif name == "__set__" and _attribute(func) == "data":
        if len(operands) == 2 and _one_place(*operands):
            return None  # w.data = w.data.to(device), where it is there already: nothing happens
        return ("the model replaces a tensor's .data while it runs", "assign a new tensor instead")
    elif name in _UNSEEN:
        return (f"the model calls {name}(), which writes to memory behind torch's back", "use operations of torch")
    elif name == "__dlpack__":
        return ("the model hands a tensor's memory to another library (DLPack)", "do it before or after the call")
    elif name in ("set_", "resize_"):
        return (f"the model calls {name}() on a tensor", "make a new tensor instead")
    elif name == "_make_dual":
        return (
            "the model differentiates in forward mode (forward_ad)",
            "use torch.autograd.grad(..., create_graph=True)",
        )
    for tensor in operands:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer) and not isinstance(
            tensor, torch.nn.Parameter
        ):
            return (f"the tensor subclass {type(tensor).__name__} is not supported", "pass plain tensors")
    return None


def _attribute(func: Any) -> str:
    return str(getattr(getattr(func, "__self__", None), "__name__", ""))


def refuse_fast_path(module: torch.nn.Module, args: Any) -> None:
    """Refuse a frozen attention module in eval mode: torch would run it by a fused kernel that nobody can look into.

    Raises:
        CaptureError: the module would take torch's fast path, which zeroes padded positions and rounds differently.
    """
    if module.training or not isinstance(module, _FAST) or not torch.backends.mha.get_fastpath_enabled():
        return
    attention = module if isinstance(module, torch.nn.MultiheadAttention) else module.self_attn
    fit = attention.batch_first and attention._qkv_same_embed_dim and attention.num_heads % 2 == 0
    if not fit or attention.in_proj_bias is None or attention.bias_k is not None or attention.add_zero_attn:
        return  # torch's own conditions, the cheap ones of them
    given = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if given and not any(tensor.requires_grad for tensor in (*given, *module.parameters())):
        raise CaptureError(
            f"a frozen {type(module).__name__} in eval mode runs by torch's fused fast path, which cannot be captured",
            hint="torch.backends.mha.set_fastpath_enabled(False) makes it run like a trained one; or call it outside",
        )


def refuse_multi_grad_hook(where: str) -> None:
    """Refuse a hook that waits for the gradients of several tensors: it asks the engine which nodes are to run.

    Raises:
        CaptureError: this is called, some frames above, by torch's function for that.
    """
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_code.co_name == "register_multi_grad_hook" and frame.f_locals.get("mode") == "all":
            raise CaptureError(
                "the model calls register_multi_grad_hook() inside forward, which looks for nodes of autograd's graph",
                where=where,
                hint="register a hook on each tensor, or return the tensors and register it outside",
            )
        if frame.f_back is None:
            return
        frame = frame.f_back


_FRAMES = 8
