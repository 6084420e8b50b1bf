"""The rules, one a file; all run on the same graph."""

from .error import ErrorPC
from .fixed import FixedPrediction
from .flow import Flow
from .il import IL
from .incremental import IncrementalPC
from .zil import ZIL

__all__ = ["IL", "ZIL", "ErrorPC", "FixedPrediction", "Flow", "IncrementalPC"]
