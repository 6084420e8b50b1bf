"""Runtime: programs in the hands of the user. Knows nothing of how a model is captured."""

from .binding import Binding
from .checkpoints import checkpointed, hooks_off
from .compiled import Compiled
from .held import Held
from .network import PCNetwork, capturing, network_of
from .relaxation import Inferred

__all__ = [
    "Binding",
    "Compiled",
    "Held",
    "Inferred",
    "PCNetwork",
    "capturing",
    "checkpointed",
    "hooks_off",
    "network_of",
]
