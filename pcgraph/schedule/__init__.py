"""Schedules: which vertex runs at which inference step, derived from the graph and the rule's timing."""

from .schedule import Schedule, schedule
from .steps import Steps
from .timing import Timed, Timing
from .values import NEVER, Lags, lags

__all__ = ["NEVER", "Lags", "Schedule", "Steps", "Timed", "Timing", "lags", "schedule"]
