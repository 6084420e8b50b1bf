"""An imported module as Python source.

What comes from the file (names of nodes and tensors, strings, numbers) gets into the text in two ways only: as an
identifier that is checked to be one, or as a literal that Python itself has quoted. Anything else raises.
"""

from .write import python_source

__all__ = ["python_source"]
