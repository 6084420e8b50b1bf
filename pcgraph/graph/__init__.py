"""The graph of value and error nodes. Knows nothing of torch.fx and of execution."""

from .graph import PCGraph
from .vertex import Operation, ParameterUse, Ref, Role, Slot, Source, TensorSpec, Use, Vertex

__all__ = ["Operation", "PCGraph", "ParameterUse", "Ref", "Role", "Slot", "Source", "TensorSpec", "Use", "Vertex"]
