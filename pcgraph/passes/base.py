"""What a pass is: a pure function from graph to graph, verified on both sides."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..errors import GraphError
from ..graph import PCGraph


class Pass(ABC):
    """One transformation, one file. Subclasses set `name` (kebab-case) and implement `run`.

    `ensures` states what the result promises; it looks at the result, not at the work.
    """

    name: str

    def __call__(self, graph: PCGraph) -> PCGraph:
        """Verify, transform, verify again.

        Raises:
            GraphError: the graph is malformed before or after, or `ensures` does not hold.
        """
        graph.verify()
        result = self.run(graph)
        result.verify()
        broken = self.ensures(result)
        if broken:
            raise GraphError(f"pass {self.name!r} broke its promise: {broken}")
        return result

    @abstractmethod
    def run(self, graph: PCGraph) -> PCGraph:
        """Build the new graph; never change the old one."""

    @abstractmethod
    def ensures(self, graph: PCGraph) -> str | None:
        """What is wrong with the result, or None."""
