"""Runtime: programs in the hands of the user. Knows nothing of how a model is captured."""

from .binding import Binding
from .compiled import Compiled
from .network import PCNetwork

__all__ = ["Binding", "Compiled", "PCNetwork"]
