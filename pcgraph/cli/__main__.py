"""``python -m pcgraph.cli`` is the `pcgraph` command."""

import sys

from .app import main

sys.exit(main())
