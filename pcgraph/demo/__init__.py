"""The demo: real images, three networks, each trained twice from one seed, with backprop and with Z-IL.

`run.py` is the whole of it from start to end. Nothing is imported here: the command line reads `names` for its
help, and should not load torch for that.
"""
