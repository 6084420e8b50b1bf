"""Work of the stages grows with the number of vertices, and not faster. Counted, never timed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import fx, nn

import pcgraph
from pcgraph.capture import capture, lower
from pcgraph.codegen import Program
from pcgraph.codegen.sweep import Sweep
from pcgraph.dynamics import ZIL
from pcgraph.graph import Operation, PCGraph, Slot
from pcgraph.graph.keys import Keys, Pool
from pcgraph.schedule import schedule


class Recurrent(nn.Module):
    """x: [batch, time, 2]; the hidden state of every step is used once."""

    def __init__(self) -> None:
        super().__init__()
        self.i, self.h, self.o = nn.Linear(2, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], 4)
        for step in x.unbind(1):
            h = torch.tanh(self.i(step) + self.h(h))
        return self.o(h)


class Fan(nn.Module):
    """Returns as many tensors as x has rows."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [row * self.w for row in x]


class Counting(tuple):  # type: ignore[type-arg]
    """A tuple that counts what is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            Counting.looks += 1
            yield item

    def __contains__(self, item: object) -> bool:
        Counting.looks += len(self)
        return super().__contains__(item)


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts the calls of Python and C functions."""
    calls = 0

    def event(frame: Any, what: str, arg: Any) -> None:
        nonlocal calls
        calls += what in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(event)
    try:
        yield lambda: calls
    finally:
        sys.setprofile(before)


def graph_of(steps: int) -> PCGraph:
    return lower(capture(Recurrent(), (torch.randn(3, steps, 2),)))


def test_calls_from_lowering_to_learning_grow_linearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pcgraph.codegen.emit.MOST_LINES", 10**9)  # cutting takes more calls a line, but no longer ones
    made = {}
    for steps in (25, 50, 100, 200):  # the first one traces the kinds
        captured = capture(Recurrent(), (torch.randn(3, steps, 2),))
        with counted() as calls:
            graph = lower(captured)
            scheduled = schedule(graph, ZIL())
            made[steps] = calls()
        program = Program(scheduled)  # traces the kinds of this length
        with counted() as calls:
            program = Program(scheduled)
            assert program.predict is not None and program.expected is not None
            program.start.branch(program.expected[-1], ())
            str(graph), graph.summary()
            made[steps] += calls()
    per_step = (made[100] - made[50]) / 50
    assert (made[200] - made[100]) / 100 == pytest.approx(per_step, rel=0.03)


def test_lowering_looks_once_at_the_outputs_of_a_vertex() -> None:
    """``unbind`` has as many outputs as there are steps, and each of them is an item of the graph."""
    captured = capture(Recurrent(), (torch.randn(3, 60, 2, requires_grad=True),))
    unbind = next(node for node in captured.graph.nodes if len(node.meta.get("specs", ())) == 60)
    unbind.meta["specs"] = Counting(unbind.meta["specs"])
    Counting.looks = 0
    lower(captured)
    assert Counting.looks <= 10 * 60


def test_capture_compares_no_output_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    def equal(self: fx.Node, other: object) -> bool:
        nonlocal compared
        compared += 1
        return self is other

    monkeypatch.setattr(fx.Node, "__eq__", equal, raising=False)
    captured = capture(Fan(), (torch.randn(80, 3),))
    assert len(captured.outputs.leaves) == 80
    assert compared <= 4 * 80


def test_learning_does_not_search_what_is_kept() -> None:
    program = Program(schedule(graph_of(40), ZIL()))
    assert len(program.saved[0]) >= 40
    program.saved = tuple(map(Counting, program.saved))
    Counting.looks = 0
    assert program.expected is not None
    program.start.branch(program.expected[-1], ())
    assert Counting.looks <= 10 * len(program.saved[0])


def test_learning_as_expected_sweeps_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sweep plans, one writes the lines; only other errors than expected need one more."""
    sweeps = 0
    advance = Sweep.advance

    def counting(self: Sweep, layouts: Any) -> Any:
        nonlocal sweeps
        sweeps += 1
        return advance(self, layouts)

    monkeypatch.setattr(Sweep, "advance", counting)
    program = Program(schedule(graph_of(10), ZIL()))
    assert program.expected is not None
    expected = program.expected[-1]
    assert expected[0] is not None
    program.start.branch(expected, ())
    assert sweeps == 2
    program.start.branch((replace(expected[0], stride=(0, 0)),), ())  # as the gradient of a sum is laid out
    assert sweeps == 3


def test_equal_operations_are_one_object() -> None:
    objects = {steps: len({id(v.operation) for v in graph_of(steps).vertices.values()}) for steps in (10, 40)}
    assert objects[10] == objects[40]


def test_a_pool_tells_apart_what_torch_tells_apart() -> None:
    pool, keys = Pool(), Keys()
    one = Operation("add", torch.add, (Slot(0), 1))
    same = Operation("add", torch.add, (Slot(0), 1))
    other = Operation("add", torch.add, (Slot(0), 1.0))
    assert pool.operation(one) is one and pool.operation(same) is one and pool.operation(other) is other
    assert keys.of(one) == keys.of(same) != keys.of(other)
    assert keys.of(one) is keys.of(one)


def test_another_setting_is_another_program() -> None:
    """Local programs are remembered by vertex, but not over a change of torch's settings."""
    network = pcgraph.compile(nn.Linear(2, 2), example_inputs=(torch.ones(3, 2),))
    program = network._last().compiled.program
    stitcher = program.stitcher
    assert stitcher._known and program.expected is not None and program.expects(0, program.expected[0])
    torch.use_deterministic_algorithms(True)
    try:
        assert not program.expects(0, program.expected[0])
        stitcher.settle()
        assert not stitcher._known
    finally:
        torch.use_deterministic_algorithms(False)
