"""nn.Linear of MatMul, MatMul and Add, and Gemm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx, nn

from ..steps import Permute, Step
from ..values import Leaf, Use
from .site import Site, on_meta

if TYPE_CHECKING:
    import onnx_ir as ir

_TRANSPOSED = Permute((1, 0))


def matmul(site: Site) -> fx.Node | None:
    """``x W`` with a weight [I, O], and the bias of an Add that alone uses the product."""
    weight = site.leaf(1)
    if weight is None or len(weight.shape) != 2 or isinstance(site.value(0), Leaf):
        return None
    if not site.fits(weight, _TRANSPOSED):
        return None
    add, bias = _added(site, weight.shape[1])
    built = _linear(site, weight, bias, _TRANSPOSED)
    if add is not None:
        site.importer.done.add(add)
        site.importer.assign(add, built)
    return built


def gemm(site: Site) -> fx.Node | None:
    """``A B + C`` without factors, B a weight and C a vector or left out."""
    weight, bias = site.leaf(1), site.leaf(2)
    get = site.attributes.get
    if weight is None or get("alpha", 1) != 1 or get("beta", 1) != 1 or get("transA", 0):
        return None
    steps: tuple[Step, ...] = () if get("transB", 0) else (_TRANSPOSED,)
    wide = weight.shape[0] if get("transB", 0) else weight.shape[1]
    if site.value(2) is not None and (bias is None or bias.shape != (wide,)):
        return None
    if not site.fits(weight, *steps) or not site.fits(bias):
        return None
    return _linear(site, weight, bias, *steps)


def _linear(site: Site, weight: Leaf, bias: Leaf | None, *steps: Step) -> fx.Node:
    wide, narrow = weight.then(*steps).shape
    module = nn.Linear(narrow, wide, bias is not None, device=on_meta(), dtype=weight.weight.tensor.dtype)
    path = site.path(weight, bias)
    site.set(module, path, "weight", weight, *steps)
    site.set(module, path, "bias", bias)
    return site.call(module, path)


def _added(site: Site, wide: int) -> tuple[ir.Node | None, Leaf | None]:
    """The Add behind a MatMul, and its vector, if the product is used there and nowhere else."""
    [product] = site.node.outputs
    uses = list(product.uses())
    if len(uses) != 1 or product.is_graph_output():
        return None, None
    add, operand = uses[0].node, uses[0].idx
    if add.op_type != "Add" or add.domain not in ("", "ai.onnx") or add.graph is not site.node.graph:
        return None, None
    other = add.inputs[1 - operand]
    importer = site.importer
    if other is None or other not in importer.values:
        return None, None
    leaf = importer.values[other]
    if not isinstance(leaf, Leaf) or not leaf.trainable or leaf.shape != (wide,):
        return None, None
    leaf = importer.job.untier.own(leaf, Use.of(add, 1 - operand))
    if leaf.weight.tensor.dtype != site.values[1].weight.tensor.dtype or not site.fits(leaf):  # type: ignore[union-attr]
        return None, None
    return add, leaf
