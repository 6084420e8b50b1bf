"""The dynamics: rules, and the simulation of the whole network. Knows nothing of capture, codegen and runtime."""

from .rules import IL, ZIL, Rule
from .simulate import simulate
from .trace import Trace

__all__ = ["IL", "ZIL", "Rule", "Trace", "simulate"]
