"""Programs in several functions do what they do in one, and let go of every value at the same line."""

from __future__ import annotations

import random
import traceback
from typing import Any

import pytest
import torch

import pcgraph
from pcgraph.codegen import emit as emission
from pcgraph.codegen.emit import Emitted, emit
from pcgraph.codegen.lines import Line
from tests.equality import assert_exact
from tests.zoo import ZOO

MODELS = (  # with seams, recomputed parts, functions of the user's, effects, many uses of one parameter
    "lstm_by_hand", "checkpointed_blocks", "own_function_with_two_outputs", "outputs_at_several_depths",
    "truncated_rnn", "same_output_twice", "gpt_dropout", "reassigned_buffer",
)  # fmt: skip


class Alive:
    """Counts the objects of a program that are alive, whenever a line runs."""

    def __init__(self) -> None:
        self.now = 0
        self.trace: list[tuple[int, tuple[int, ...]]] = []

    def make(self, number: int, count: int, *reads: Token) -> Any:
        self.trace.append((self.now, tuple(token.number for token in reads)))
        made = [Token(self, 100 * number + k) for k in range(count)]
        return made if count > 1 else made[0]


class Token:
    def __init__(self, alive: Alive, number: int) -> None:
        self.alive, self.number = alive, number
        alive.now += 1

    def __del__(self) -> None:
        self.alive.now -= 1


class Written:
    """A random program: its lines, arguments and returned names."""

    def __init__(self, seed: int, length: int, again: bool = False) -> None:
        choose = random.Random(seed)
        self.arguments = [("values", ["v0", "v1", "v2", "unread"]), ("errors", []), ("more", ["w0"])]
        names = ["v0", "v1", "v2", "w0"]
        self.alive = Alive()
        self.lines: list[Line] = []
        for n in range(length):
            reads = tuple(choose.choice(names[-12:] if choose.random() < 0.8 else names) for _ in range(3))
            outs = tuple(f"t{n}_{k}" for k in range(choose.choice((1, 1, 1, 2))))
            if again and choose.random() < 0.1:
                outs = (choose.choice(names),)  # evaluated once more, as in a checkpoint
            self.lines.append(Line(outs, f"make({n}, {len(outs)}, %s, %s, %s)", reads, (("make", self.alive.make),)))
            names += outs
        self.returns = [tuple(choose.sample(sorted(set(names)), 5)), ("None", "v1"), (names[-1], names[-1])]

    def run(self, emitted: Emitted) -> tuple[list[tuple[int, tuple[int, ...]]], list[list[Any]]]:
        self.alive.trace = []
        lists: list[list[Any]] = [
            [Token(self.alive, -n - 1) for n, _ in enumerate(names)] for _, names in self.arguments
        ]
        results = [[t and t.number for t in group] for group in emitted.function(*lists)]
        assert lists == [[], [], []]
        assert self.alive.now == 0
        return self.alive.trace, results

    def emitted(self) -> Emitted:
        return emit("program", self.arguments, self.lines, self.returns)


def cut(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(emission, "MOST_LINES", 0)
    monkeypatch.setattr(emission, "CHUNK_LINES", size)


@pytest.mark.parametrize("seed", range(12))
def test_every_value_lives_as_long_as_in_one_function(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Written(seed, 60, again=seed % 2 == 1)
    whole = program.emitted()
    assert whole.source.count("def ") == 1
    expected = program.run(whole)
    for size in (1, 2, 7, 59, 60, 61):
        cut(monkeypatch, size)
        parts = program.emitted()
        assert parts.source.count("def ") == -(-60 // size)
        trace, results = program.run(parts)
        assert results == expected[1]
        assert [reads for _, reads in trace] == [reads for _, reads in expected[0]]
        if seed % 2 == 0:
            assert trace == expected[0]
        else:  # nobody needs a value that is made anew: its place is emptied before
            assert all(mine <= one for (mine, _), (one, _) in zip(trace, expected[0], strict=True))


def test_a_program_of_one_function_stays_one() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(50)))
    network = pcgraph.compile(model, example_inputs=(torch.randn(2, 4),))
    assert all(source.count("def ") == 1 for source in network.sources.values())


def test_functions_have_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where values of hundreds of functions are read by one, or one value by all."""
    cut(monkeypatch, 10)
    lines = [Line((f"t{n}",), "torch.add(%s, %s)", ("x", f"t{n - 1}" if n else "x")) for n in range(500)]
    emitted = emit("long", [("values", ["x"])], lines, [("t499",), tuple(f"t{n}" for n in range(499))])
    functions = emitted.source.split("def ")[1:]
    assert len(functions) == 50
    assert max(function.count("\n") for function in functions) <= 3 * 10
    [[last], others] = emitted.function([torch.ones(2)])
    assert last.tolist() == [501.0, 501.0] and len(others) == 499


def test_a_wrong_number_of_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Written(0, 20)
    cut(monkeypatch, 5)
    with pytest.raises(ValueError, match="5 values expected, 1 given"):
        program.emitted().function([1], [], [])


def test_a_traceback_shows_the_line_of_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(value: object) -> None:
        raise RuntimeError("here")

    cut(monkeypatch, 2)
    lines = [Line((f"y{n}",), "fail(%s)" if n == 5 else "torch.neg(%s)", (f"y{n - 1}",)) for n in range(1, 8)]
    lines[4] = Line(("y5",), "fail(%s)", ("y4",), (("fail", fail),))
    emitted = emit("program", [("values", ["y0"])], lines, [("y7",)])
    with pytest.raises(RuntimeError, match="here") as caught:
        emitted.function([torch.ones(1)])
    frame = traceback.extract_tb(caught.value.__traceback__)[-2]
    assert frame.name == "program_2" and frame.line == "y5 = fail(y4)"
    assert frame.filename.startswith("<pcgraph program_2 ")


@pytest.mark.parametrize("name", MODELS)
def test_models_learn_exactly_in_pieces(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pcgraph import compiler

    cut(monkeypatch, 3)
    monkeypatch.setattr(compiler, "_programs", type(compiler._programs)())
    assert_exact(ZOO[name], torch.float32)
