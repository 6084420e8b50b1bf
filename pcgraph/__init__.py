"""pcgraph: a graph compiler that makes existing networks learn by predictive coding, exactly like backpropagation."""

from .capture import Captured, capture, lower
from .compiler import compile
from .dynamics import (
    IL,
    ZIL,
    Bernoulli,
    Categorical,
    Energy,
    ErrorPC,
    FixedPrediction,
    Flow,
    Gaussian,
    IncrementalPC,
    Rule,
    Trace,
)
from .errors import CaptureError, GraphError, LearnError, OnnxExportError, OnnxImportError, PCGraphError, ScheduleError
from .graph import PCGraph
from .mupc import mupc
from .onnx import from_onnx, to_onnx
from .runtime import Inferred, PCNetwork
from .schedule import Schedule, schedule
from .verify import Report, verify

__version__ = "0.1.0"

__all__ = [
    "IL",
    "ZIL",
    "Bernoulli",
    "CaptureError",
    "Captured",
    "Categorical",
    "Energy",
    "ErrorPC",
    "FixedPrediction",
    "Flow",
    "Gaussian",
    "GraphError",
    "IncrementalPC",
    "Inferred",
    "LearnError",
    "OnnxExportError",
    "OnnxImportError",
    "PCGraph",
    "PCGraphError",
    "PCNetwork",
    "Report",
    "Rule",
    "Schedule",
    "ScheduleError",
    "Trace",
    "capture",
    "compile",
    "from_onnx",
    "lower",
    "mupc",
    "schedule",
    "to_onnx",
    "verify",
]
