"""nn.Embedding of a Gather of rows."""

from __future__ import annotations

from torch import fx, nn

from ..values import Leaf
from .site import Site, on_meta

_SAME_NUMBERS = ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Transpose")


def embedding(site: Site) -> fx.Node | None:
    """Rows of a matrix [V, D]. An embedding refuses negative indices, so only where none are to be expected."""
    weight, index = site.leaf(0), site.value(1)
    if weight is None or not weight.trainable or len(weight.shape) != 2 or site.attributes.get("axis", 0) != 0:
        return None
    if not site.fits(weight) or not _counted(site, index):
        return None
    rows, width = weight.shape
    module = nn.Embedding(rows, width, device=on_meta(), dtype=weight.weight.tensor.dtype)
    path = site.path(weight)
    site.set(module, path, "weight", weight)
    site.importer.leaves.add_module(path, module)
    return site.importer.call_module(path, (site.argument(1),), site.node)


def _counted(site: Site, index: object) -> bool:
    """Whether the indices are an input of the file (tokens), or constants that are not negative."""
    if isinstance(index, Leaf):
        return not bool((index.tensor < 0).any())
    value = site.node.inputs[1]
    while value is not None:
        if value.is_graph_input():
            return site.importer.outer is None
        producer = value.producer()
        if producer is None or producer.op_type not in _SAME_NUMBERS:
            return False
        value = producer.inputs[0]
    return False
