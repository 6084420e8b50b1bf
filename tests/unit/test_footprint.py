"""What lines do and hold, known from sizes alone; and what may be evaluated again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pcgraph
from pcgraph.codegen.cost import Costs, Effect, external
from pcgraph.codegen.economise import economy_of
from pcgraph.codegen.economy import Economy
from pcgraph.codegen.footprint import Ledger, live
from pcgraph.codegen.lines import Line
from pcgraph.codegen.prediction import without
from pcgraph.codegen.program import Program
from pcgraph.graph.vertex import TensorSpec
from pcgraph.measure import peak_memory


def spec(*shape: int) -> TensorSpec:
    return TensorSpec.of(torch.empty(shape))


def effect(text: str, *shapes: tuple[int, ...], outs: int = 1) -> Effect:
    line = Line(tuple(f"o{k}" for k in range(outs)), text, tuple(f"i{k}" for k in range(len(shapes))))
    return Costs().effect(line, [external(spec(*shape)) for shape in shapes])


def program(model: nn.Module, x: Tensor) -> Program:
    found: Program = pcgraph.compile(model, example_inputs=(x,))._last().compiled.program
    return found


def economy(model: nn.Module, x: Tensor) -> Economy:
    compiled = program(model, x)
    return economy_of(compiled.stitcher, compiled.predict_lines, compiled.learn_lines)


def test_a_product_makes_memory_and_a_view_does_not() -> None:
    product, view = effect("torch.mm(%s, %s)", (3, 4), (4, 5)), effect("%s.view(2, 6)", (3, 4))
    (made,), (seen,) = product.values[0].parts, view.values[0].parts
    assert made is not None and (made.bytes, made.source) == (3 * 5 * 4, None) and made.spec.shape == (3, 5)
    assert seen is not None and (seen.bytes, seen.source) == (0, (0, 0))
    assert view.seconds == 0.0 < product.seconds
    assert not product.closed and not product.writes


def test_pieces_of_a_tuple() -> None:
    pieces = effect("torch.split(%s, 2, 1)", (3, 4))
    assert pieces.values[0].many and [p and p.source for p in pieces.values[0].parts] == [(0, 0), (0, 0)]
    norm = effect("torch.native_layer_norm(%s, [4], None, None, 1e-05)", (3, 4))
    assert [p and p.bytes for p in norm.values[0].parts] == [48, 12, 12]


def test_writes_and_random_numbers() -> None:
    assert effect("%s.add_(%s)", (3,), (3,), outs=0).writes == {0}
    assert effect("torch.ops.aten.bernoulli_(%s, 0.5)", (3,)).closed
    assert effect("%s.item()", (1,)).closed, "it looks at data"


def test_batch_norm_does_without_running_statistics() -> None:
    text = "torch.native_batch_norm(%s, None, None, %s, %s, True, 0.1, 1e-05)"
    found = effect(text, (8, 3), (3,), (3,))
    assert found.silenced == (1, 2) and not found.writes and not found.closed
    line = without(Line(("y",), text, ("x", "mean", "var")), found.silenced)
    assert line.render() == "y = torch.native_batch_norm(x, None, None, None, None, True, 0.1, 1e-05)"
    evaluating = effect(text.replace("True", "False"), (8, 3), (3,), (3,))
    assert evaluating.silenced == (), "it reads them, and they stay"


def test_bytes_line_by_line() -> None:
    """a = x @ w (64 bytes); b = a.view() (none); c = a + a (64); a and b are free after c."""
    ledger = Ledger(Costs())
    ledger.enter("x", spec(4, 4))
    ledger.enter("w", spec(4, 4))
    lines = [
        Line(("a",), "torch.mm(%s, %s)", ("x", "w")),
        Line(("b",), "%s.view(16)", ("a",)),
        Line(("c",), "%s + %s", ("a", "a")),
        Line(("d",), "torch.sum(%s)", ("b",)),
        Line(("e",), "torch.mm(%s, %s)", ("c", "w")),
    ]
    for line in lines:
        ledger.run(line)
    assert live(ledger, lines, [0] * 5, (), ("e",)) == [64, 64, 128, 132, 128]
    assert live(ledger, lines, [0] * 5, (), ("e", "a")) == [64, 64, 128, 132, 192]
    assert live(ledger, lines, [7] * 5, (), ("e",))[0] == 71


@pytest.mark.parametrize("width", [16, 64])
def test_the_peak_is_foretold(width: int) -> None:
    torch.manual_seed(0)
    layers = [m for _ in range(5) for m in (nn.Linear(width, width), nn.LayerNorm(width), nn.GELU())]
    model, x = nn.Sequential(*layers), torch.randn(128, width)
    network = pcgraph.compile(model)

    def step() -> None:
        network(x).square().sum().backward()
        model.zero_grad()

    step()
    foretold = economy(model, x).default.peak
    assert (
        abs(peak_memory(step) - foretold) <= 2 * 128 * width * 4 + 4096
    )  # the loss and its error are not the network's


def test_what_is_written_later_is_not_evaluated_again() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.register_buffer("moving", torch.ones(4))
            self.register_buffer("fixed", torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(self.layer(x) + self.moving)
            with torch.no_grad():
                self.moving.mul_(0.5)
            return torch.tanh(y + self.fixed)

    prediction = economy(Writes(), torch.randn(3, 4)).prediction
    can = {v: prediction.repeatable[i] for i, v in enumerate(prediction.vertices)}
    assert can["linear"] and can["tanh"] and can["add_1"] and can["tanh_1"]
    assert not can["add"], "it reads a buffer that moves"
    assert not can["mul_"]


def test_the_choice_is_the_same_every_time_and_holds_less() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(12) for m in (nn.Linear(32, 32), nn.GELU())))
    x = torch.randn(256, 32)
    found: list[Any] = []
    for _ in range(2):
        compiled = pcgraph.compile(model, memory="low", example_inputs=(x,))._last().compiled.program
        found.append(compiled.stitcher.rematerialisation)
        pcgraph.compiler._programs.clear()
    assert found[0].kept == found[1].kept and found[0].borders == found[1].borders
    step = economy(model, x)
    assert step.outcome(replace_prediction(found[0], step)).peak < 0.7 * step.default.peak


def replace_prediction(choice: Any, step: Economy) -> Any:
    return type(choice)(step.prediction, choice.kept, choice.borders)
