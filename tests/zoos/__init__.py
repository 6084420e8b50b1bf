"""The zoos of other libraries: their models, compiled, held against plain autograd to the bit.

`python -m tests.zoos --library torchvision --write docs/zoo.md` runs a zoo and writes the table.
"""
