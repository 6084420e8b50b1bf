"""The cases that are known not to be exact, and what a run says about them. This file is meant to get shorter."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from tests.opinfo.records import Record
from tests.opinfo.verdict import Class

EXCEPTIONS: dict[str, str] = {
    # name|role|dtype|index of the sample: reason
    "nn.functional.dropout3d|in-place|*|[0-5]": "torch gives an input without batch a new shape in place",
}
"""Patterns of `Case.key`. They excuse refusals and errors, never a wrong number."""


def reason_for(record: Record) -> str | None:
    """Why a case is expected not to be exact, or None."""
    for pattern, reason in EXCEPTIONS.items():
        if fnmatch.fnmatchcase(record.key, pattern):
            return reason
    return None


def complaints(records: Iterable[Record]) -> list[str]:
    """One line for every case that is not exact without being listed, or listed though it is exact.

    >>> good = Record("", "sin", "input", "float32", 0, Class.BITWISE, "", 4, 1, "")
    >>> complaints([good])
    []
    >>> import dataclasses
    >>> complaints([dataclasses.replace(good, result=Class.WRONG, reason="output 0: 1.0 against 2.0")])
    ['sin|input|float32|0: wrong: output 0: 1.0 against 2.0']
    """
    found = []
    for record in records:
        listed = reason_for(record)
        if record.result.exact and listed is not None:
            found.append(f"{record.key}: is exact; take it out of exceptions.py ({listed})")
        elif record.result is Class.WRONG or (record.result.compared and not record.result.exact and listed is None):
            found.append(f"{record.key}: {record.result}: {record.reason}")
    return found
