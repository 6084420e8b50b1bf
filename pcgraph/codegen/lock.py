"""One lock for everything that traces or compiles: neither torch's tracers nor its compilers are reentrant."""

from __future__ import annotations

import threading

LOCK = threading.RLock()
