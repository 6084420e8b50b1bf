"""Errors that name the vertex, the user's line, what is wrong and the way out."""

from __future__ import annotations


class PCGraphError(RuntimeError):
    """Base class of every error that pcgraph raises on purpose.

    Args:
        what: what is wrong, one sentence.
        vertex: printed line of the vertex concerned, if there is one.
        where: the user's ``file:line`` (and module path) that made the vertex.
        hint: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        vertex: str | None = None,
        where: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.vertex, self.where, self.hint = what, vertex, where, hint
        lines = [what]
        if vertex:
            lines.append(f"  vertex: {vertex}")
        if where:
            lines.append(f"  where:  {where}")
        if hint:
            lines.append(f"  do:     {hint}")
        super().__init__("\n".join(lines))


class CaptureError(PCGraphError):
    """The model could not be turned into a graph without risking a wrong gradient."""


class GraphError(PCGraphError):
    """A graph breaks one of its invariants."""


class ScheduleError(PCGraphError):
    """No schedule satisfies the rule on this graph."""


class LearnError(PCGraphError):
    """The learning phase was asked for something that it cannot do exactly."""


class OnnxExportError(PCGraphError):
    """Trained weights cannot be written back into the ONNX file that they came from."""


class OnnxImportError(PCGraphError):
    """An ONNX file cannot be imported, or not without risking that it computes something else.

    Args:
        what: what is wrong, one sentence.
        node: name of the ONNX node concerned, or of its first output if it has no name.
        operator: the node's operator, with its domain if that is not ``ai.onnx``.
        file: the file, or what stands for it.
        hint: what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        node: str | None = None,
        operator: str | None = None,
        file: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.node, self.operator, self.file = node, operator, file
        place = [f"{operator or 'node'} {node!r}" if node is not None else operator or "", f"in {file}" if file else ""]
        super().__init__(what, where=" ".join(part for part in place if part) or None, hint=hint)
