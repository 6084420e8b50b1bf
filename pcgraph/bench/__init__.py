"""The benchmark behind ``pcgraph bench``: ways to learn, side by side on one model, batch and seed.

`run` starts a process per model and watches it; `worker` is what happens inside: every contender (`contenders`) is
checked against eager backprop (`check`), then all of them race (`pcgraph.measure`). `figures` makes medians and ratios
of the times, `report` and `plot` show them.
"""
