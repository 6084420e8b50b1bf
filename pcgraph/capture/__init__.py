"""Capture: a module and its inputs become a torch.fx graph. Knows nothing of predictive coding."""

from .again import Unrepeatable
from .capture import capture
from .captured import Captured
from .lower import lower

__all__ = ["Captured", "Unrepeatable", "capture", "lower"]
