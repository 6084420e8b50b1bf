"""`pcgraph bench` as a script, for a checkout that is not installed.

python benchmarks/bench_step.py --models mlp-512,lenet --rounds 60 --json step.json
"""

import sys

from pcgraph.cli import main

if __name__ == "__main__":  # the measuring processes import this file again
    sys.exit(main(["bench", *sys.argv[1:]]))
