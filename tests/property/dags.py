"""Random DAG models: a recipe that hypothesis draws and shrinks, and the module that interprets it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.property.dag_ops import GROUPS, OPS
from tests.zoo import Case, Made

ROWS, COLUMNS = 3, 4


@dataclass(frozen=True)
class Step:
    """Vertex number `index`: an operation on values that exist already.

    Values are counted through: the inputs first, then every tensor that a step yields.
    """

    op: str
    reads: tuple[int, ...]
    pick: int = 0
    width: int = COLUMNS  # of the first operand: columns of an own weight
    frozen: bool = False


@dataclass(frozen=True)
class Recipe:
    """A model.

    Attributes:
        inputs: for each input [3, 4], whether its gradient is asked for.
        shared: how many linear layers any step may use again.
        steps: the vertices, in order.
        outputs: values that the model returns; the last one is learned, the others may be anything.
        seed: of parameters and inputs.
    """

    inputs: tuple[bool, ...]
    shared: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    seed: int = 0

    def case(self) -> Case:
        """The recipe as a case of the zoo."""

        def make() -> Made:
            torch.manual_seed(self.seed)
            model = DagModel(self.shared)
            for index, step in enumerate(self.steps):
                model.grow(index, step)
            model.recipe = self
            inputs = tuple(torch.randn(ROWS, COLUMNS).requires_grad_(wanted) for wanted in self.inputs)
            return model, inputs

        return Case("random_dag", make, rebatch=None)


class DagModel(nn.Module):
    """Interprets a recipe: one call of torch, or a few, for every step."""

    recipe: Recipe

    def __init__(self, shared: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(COLUMNS, COLUMNS) for _ in range(shared))
        self.vectors = nn.ParameterList([nn.Parameter(torch.rand(COLUMNS) + 0.3) for _ in range(2)])

    def grow(self, index: int, step: Step) -> None:
        """Make the parameters that only this step uses."""
        if step.op == "linear":
            layer = nn.Linear(step.width, COLUMNS, bias=step.pick % 2 == 0).requires_grad_(not step.frozen)
            self.add_module(f"own{index}", layer)

    def own(self, index: int) -> tuple[Tensor, Tensor | None]:
        layer = self.get_submodule(f"own{index}")
        assert isinstance(layer, nn.Linear)
        return layer.weight, layer.bias

    def shared(self, pick: int) -> nn.Module:
        return self.layers[pick % len(self.layers)]

    def vector(self, pick: int) -> Tensor:
        return self.vectors[pick % len(self.vectors)]

    def run(self, index: int, step: Step, values: Sequence[Tensor]) -> list[Tensor]:
        """Values that one step yields."""
        result = OPS[step.op].run(self, index, step.pick, [values[k] for k in step.reads])
        return [result] if isinstance(result, Tensor) else list(result)

    def forward(self, *inputs: Tensor) -> Any:
        values = list(inputs)
        for index, step in enumerate(self.recipe.steps):
            values += self.run(index, step, values)
        outputs = [values[k] for k in self.recipe.outputs]
        return outputs[0] if len(outputs) == 1 else outputs


class Sketch:
    """A recipe in the making. It is run as it grows, so shapes and sizes of values are known and need no rules.

    Some writes autograd itself refuses: into leaves, into what a gradient still needs, through pieces of a
    multi-output view. Values that share memory form a group; `locked` groups take no more writes.
    """

    def __init__(self, inputs: tuple[bool, ...], shared: int, seed: int) -> None:
        self.inputs, self.shared, self.seed = inputs, shared, seed
        torch.manual_seed(seed)
        self.model = DagModel(shared)
        self.values: list[Tensor] = [torch.randn(ROWS, COLUMNS) for _ in inputs]
        self.groups = list(range(len(inputs)))
        self.sealed = [True] * len(inputs)
        self.locked = set(self.groups)  # an input is a leaf, and the caller's
        self.steps: list[Step] = []

    def choices(self, name: str, chosen: Sequence[int]) -> list[int]:
        """Values that may be the next operand of operation `name`, latest first."""
        op, before = OPS[name], [self.values[k] for k in chosen]
        found = []
        for k in reversed(range(len(self.values))):
            if not op.fits[len(chosen)](self.values[k], before):
                continue
            if op.writes and not chosen and (self.sealed[k] or self.groups[k] in self.locked):
                continue
            if op.writes and chosen and self.groups[k] == self.groups[chosen[0]]:
                continue
            found.append(k)
        return found

    @torch.no_grad()
    def add(self, name: str, reads: tuple[int, ...], pick: int = 0, frozen: bool = False) -> int:
        """Append a step, run it; returns the number of its first value."""
        op, index = OPS[name], len(self.steps)
        step = Step(name, reads, pick, self.values[reads[0]].shape[-1], frozen)
        self.model.grow(index, step)
        results = self.model.run(index, step, self.values)
        first = len(self.values)
        for result in results:
            group = self.groups[reads[0]] if op.alias else len(self.values)
            self.values.append(result)
            self.groups.append(group)
            self.sealed.append(op.sealed or (op.alias and self.sealed[reads[0]]))
            if op.saves_result or (op.alias and len(results) > 1):
                self.locked.add(group)
        if op.saves_operands:
            self.locked.update(self.groups[k] for k in (reads[1:] if op.writes else reads))
        self.steps.append(step)
        return first


@st.composite
def recipes(draw: st.DrawFn, vertices: int = 40) -> Recipe:
    """Recipes of 2 to `vertices` steps. Shrinks to few steps that read their predecessor."""
    inputs = draw(st.sampled_from([(False,), (True,), (False, True), (True, True)]))
    sketch = Sketch(tuple(inputs), draw(st.integers(1, 2)), draw(st.integers(0, 3)))
    for _ in range(draw(st.integers(1, vertices - 1))):
        name = draw(st.sampled_from(draw(st.sampled_from(GROUPS))))
        reads: list[int] = []
        for _ in OPS[name].fits:
            choices = sketch.choices(name, reads)
            if not choices:
                break
            # The latest fitting value half of the time, so that most vertices reach an output; else any skip.
            reads.append(draw(st.one_of(st.just(choices[0]), st.sampled_from(choices))))
        if len(reads) == len(OPS[name].fits):
            sketch.add(name, tuple(reads), draw(st.integers(0, 3)), draw(st.booleans()))
        else:  # nothing fits: go on from any floating value
            sketch.add("linear", (draw(st.sampled_from(sketch.choices("linear", []))),))
    everything = range(len(sketch.values))
    inner = draw(st.lists(st.sampled_from(everything), max_size=3))
    last = sketch.add("linear", (sketch.choices("linear", [])[0],))
    return Recipe(sketch.inputs, sketch.shared, tuple(sketch.steps), (*inner, last), sketch.seed)
