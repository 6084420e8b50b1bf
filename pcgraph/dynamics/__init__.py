"""The dynamics: rules, and the simulation of the whole network. Knows nothing of capture, codegen and runtime."""

from .energy import Bernoulli, Categorical, Custom, Energy, Gaussian
from .rule import Rule
from .rules import IL, ZIL, ErrorPC, FixedPrediction, Flow, IncrementalPC
from .simulate import simulate
from .trace import Trace

__all__ = [
    "IL",
    "ZIL",
    "Bernoulli",
    "Categorical",
    "Custom",
    "Energy",
    "ErrorPC",
    "FixedPrediction",
    "Flow",
    "Gaussian",
    "IncrementalPC",
    "Rule",
    "Trace",
    "simulate",
]
