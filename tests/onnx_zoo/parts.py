"""The parts of the zoo. Nothing heavy is imported before it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.onnx_zoo.row import Row

PARTS = ("exports", "packages")
PRELOAD = ("onnx", "onnxruntime", "tests.onnx_zoo.warm")


def names_of(part: str) -> list[str]:
    """Names of the files of a part."""
    if part == "exports":
        from tests.onnx_zoo.exports import exports

        return list(exports())
    from tests.onnx_zoo.packages import shipped

    return list(shipped())


def judged(part: str, kept: Path, files: Path | None, name: str, report: Callable[[str], None]) -> Row:
    """The row of one file.

    Args:
        part: of the zoo.
        kept: folder of the files that are written here.
        files: folder of the packages' files.
        name: of the file.
        report: told each stage as it begins.
    """
    if part == "exports":
        from tests.onnx_zoo import judge_export
        from tests.onnx_zoo.exports import exports

        return judge_export.judge(exports()[name], kept, report)
    from tests.onnx_zoo import judge_package
    from tests.onnx_zoo.packages import shipped

    return judge_package.judge(shipped()[name], files, kept, report)
