"""Whose line of code is it: the user's, or torch's and pcgraph's own?"""

from __future__ import annotations

import os
import sys
import types

import torch

from ..graph.vertex import Source

_INTERNAL = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.dirname(__file__)) + os.sep)
_internal_file: dict[str, bool] = {}


def is_internal(filename: str) -> bool:
    """Whether a source file belongs to torch or to pcgraph, not to the user."""
    known = _internal_file.get(filename)
    if known is None:
        known = _internal_file[filename] = filename.startswith((*_INTERNAL, "<frozen", "<pcgraph"))
    return known


def user_source() -> Source | None:
    """The innermost line of the call stack that is the user's."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not is_internal(code.co_filename):
            return Source(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return None
