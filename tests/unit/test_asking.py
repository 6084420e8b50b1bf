"""Straight-line code for questions: it evaluates in order, stops at the first other answer, and leaves no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pcgraph.capture.asking import Place, Step, emit


def equal(value: Any, answer: Any) -> bool:
    return type(value) is type(answer) and value == answer


def ask(*steps: Step, sources: int = 1) -> Callable[..., bool]:
    return emit(steps, sources, equal)


def read(place: int, answer: Any) -> Step:
    return Step("item", (Place(place),), {}, False, (answer,))


def test_places_within_every_container() -> None:
    index = Step(
        torch.Tensor.__getitem__, (Place(0), (slice(None, None, None), slice(Place(1), None, 2))), {}, False, ()
    )
    joined = Step(torch.cat, ([Place(2), Place(2)],), {"dim": 1}, False, ())
    total = Step("sum", (Place(3),), {}, False, ())
    asking = ask(index, joined, total, read(4, 20), sources=2)
    assert asking(torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4]]), 1) is False  # 2 * (2 + 4 + 2 + 4) = 24
    assert asking(torch.tensor([[1, 2, 3, 4], [1, 1, 3, 3]]), 1) is True


def test_keyword_that_python_reserves() -> None:
    seen: list[dict[str, Any]] = []
    keep = Step(lambda value, **named: seen.append(named), (Place(0),), {"from": 1, "to": [Place(0)]}, False, (None,))
    assert ask(keep)(7) is True
    assert seen == [{"from": 1, "to": [7]}]


def test_a_list_that_a_step_writes_to_is_new_at_each_call() -> None:
    grown = Step(lambda items: items.append(1) or len(items), ([Place(0)],), {}, False, (2,))
    asking = ask(grown)
    assert [asking(0), asking(0)] == [True, True]


@pytest.mark.parametrize("answer", [True, False, None, 1, 1.0, "a"])
def test_answers(answer: Any) -> None:
    asking = ask(Step(lambda value: value, (Place(0),), {}, False, (answer,)))
    others = [other for other in (True, False, None, 1, 1.0, "a") if other is not answer]
    assert asking(answer) is True
    assert not any(asking(other) for other in others)


def test_it_stops_at_the_first_other_answer() -> None:
    ran: list[int] = []
    after = Step(lambda value: ran.append(1), (Place(0),), {}, False, ())
    asking = ask(read(0, 3), after)
    assert asking(torch.tensor(4)) is False and ran == []
    assert asking(torch.tensor(3)) is True and ran == [1]


@pytest.mark.parametrize("around", [True, False])
def test_grad_mode_of_the_run_and_as_it_was_afterwards(around: bool) -> None:
    modes: list[bool] = []
    note = [Step(lambda value: modes.append(torch.is_grad_enabled()), (Place(0),), {}, on, ()) for on in (True, False)]
    fails = Step(lambda value: 1 // value, (Place(0),), {}, True, ())
    with torch.set_grad_enabled(around):
        assert ask(*note)(0) is True
        assert torch.is_grad_enabled() is around
        with pytest.raises(ZeroDivisionError):
            ask(*note, fails)(0)
        assert torch.is_grad_enabled() is around
    assert modes == [True, False, True, False]
