"""pcgraph: a graph compiler that makes existing networks learn by predictive coding, exactly like backpropagation."""

from .capture import Captured, capture, lower
from .compiler import compile
from .errors import CaptureError, GraphError, LearnError, PCGraphError, ScheduleError
from .graph import PCGraph
from .runtime import PCNetwork
from .schedule import Schedule, schedule

__version__ = "0.1.0"

__all__ = [
    "CaptureError",
    "Captured",
    "GraphError",
    "LearnError",
    "PCGraph",
    "PCGraphError",
    "PCNetwork",
    "Schedule",
    "ScheduleError",
    "capture",
    "compile",
    "lower",
    "schedule",
]
