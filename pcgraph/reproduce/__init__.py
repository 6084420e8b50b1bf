"""The paper's tables and figures, and what goes beyond them, by one command on real data: ``pcgraph reproduce``.

An experiment is a table; a table is made of cells; a cell is measured once, kept, and never typed. Only the public
API of pcgraph is used here.
"""
