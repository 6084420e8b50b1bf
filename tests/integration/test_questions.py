"""What Python reads from tensors: asked again of every new input, and captured again where the answer is another."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pcgraph


class Net(nn.Module):
    """A layer, and what is done with it."""

    def __init__(self, body: Callable[[Net, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(4, 4)
        self.body = body
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.body(self, x, mask)


def whole_mask(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x).tanh() if mask.all() else net.a(x)


def rows(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x)[mask].tanh() * 2


def places(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x).tanh()[mask.nonzero()[:, 0]] * len(mask.nonzero())


def longest(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x)[: int(mask.sum())].sin()


def lengths(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    first = mask.tolist().index(True) + 1
    return net.a(x).split([first, 3 - first])[0].cos()


def early_exit(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    h = net.a(x)
    return net.a(h) if h.mean() > 0 else h


def setting(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x) * net.scale.item()


def written_inside(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    y = mask.clone()
    y[0] = True
    return net.a(x).exp() if y.all() else net.a(x)


ASKED = [whole_mask, rows, places, longest, lengths, early_exit, setting, written_inside]


def input_as_number(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x) * x.max().item()


def counter(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    net.count += 1
    return net.a(x) * (2 if net.count > 3 else 1)


def random_choice(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x) * (2 if torch.rand(()) > 0.5 else 1)


def dropped(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    h = nn.functional.dropout(net.a(x))
    return h * 2 if h.sum() > 0 else h


def far(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    h = x
    for _ in range(70):
        h = net.a(h).tanh()
    return h * 2 if h.sum() > 0 else h


NOT_ASKED = [input_as_number, counter, random_choice, dropped, far]
MASKS = [torch.tensor(m) for m in ([True] * 3, [True, False, True], [True] * 3, [False, True, True], [True] * 3)]


def run(body: Any) -> tuple[dict[str, Any], int]:
    """Twenty steps beside autograd; the network's counts, and how many different graphs there were."""
    model = Net(body)
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    generator = torch.Generator().manual_seed(1)
    for step in range(20):
        x = torch.randn(3, 4, generator=generator) + (0.5 if step % 2 else -0.5)
        for candidate in (twin, network):
            torch.manual_seed(step)
            (candidate(x, MASKS[step % 5]) ** 2).sum().backward()
        for a, b in zip(twin.parameters(), model.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad)
        assert torch.equal(twin.count, model.count)
    return network.cache_info(), step + 1


@pytest.mark.parametrize("body", ASKED, ids=lambda f: f.__name__)
def test_captured_once_per_answer(body: Any) -> None:
    info, calls = run(body)
    assert info["once"] == ()
    assert info["captures"] <= 3
    assert info["hits"] == calls - info["captures"]


@pytest.mark.parametrize("body", NOT_ASKED, ids=lambda f: f.__name__)
def test_captured_at_every_call(body: Any) -> None:
    info, calls = run(body)
    assert info["captures"] == calls
    assert info["once"] and "test_questions.py" in info["once"][0]


@pytest.mark.parametrize("body", [whole_mask, rows, longest, lengths], ids=lambda f: f.__name__)
def test_the_same_tensor_with_other_numbers_in_it(body: Any) -> None:
    """Written to through NumPy, which no version counter tells of."""
    model = Net(body)
    twin = copy.deepcopy(model)
    network, x, mask = pcgraph.compile(model), torch.randn(3, 4), torch.ones(3, dtype=torch.bool)
    for values in ([1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1]):
        mask.numpy()[:] = values
        for candidate in (twin, network):
            (candidate(x, mask) ** 2).sum().backward()
        for a, b in zip(twin.parameters(), model.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad)
    assert network.cache_info()["captures"] <= 3


def test_the_same_numbers_at_another_place() -> None:
    """Where a view lies depends on where the whole of it lies."""

    def beside(net: Net, x: Tensor, mask: Tensor) -> Tensor:
        row = mask[mask[0, 0]]  # a view
        return net.a(x) * row.as_strided((1,), (1,), row.storage_offset() + 2)

    model = Net(beside)
    twin = copy.deepcopy(model)
    network, x = pcgraph.compile(model), torch.randn(3, 4)
    memory = torch.tensor([0, 1, 2, 0, 1, 5, 0, 1, 7])
    for start in (0, 0, 3, 3, 0, 3):
        for candidate in (twin, network):
            (candidate(x, memory.as_strided((1, 2), (1, 1), start)) ** 2).sum().backward()
        for a, b in zip(twin.parameters(), model.parameters(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad)


def test_a_setting_that_changes() -> None:
    model = Net(setting)
    network = pcgraph.compile(model)
    x = torch.randn(3, 4)
    for scale, captures in ((2.0, 1), (3.0, 2), (3.0, 2), (2.0, 2)):
        model.scale.fill_(scale)
        assert torch.equal(network(x, MASKS[0]), model(x, MASKS[0]))
        assert network.cache_info()["captures"] == captures


def test_a_question_that_raises_is_raised_by_the_model() -> None:
    def pick(net: Net, x: Tensor, mask: Tensor) -> Tensor:
        return net.a(x) if x[mask.long()].sum() > 0 else net.a(x) * 2

    network = pcgraph.compile(Net(pick))
    x = torch.ones(3, 4)
    network(x, torch.tensor([0, 1, 2]))
    with pytest.raises(IndexError, match=r"out of (range|bounds)"):
        network(x, torch.tensor([0, 1, 7]))
    assert network(x, torch.tensor([0, 1, 1])).shape == (3, 4)


def test_the_environment_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def reads(net: Net, x: Tensor, mask: Tensor) -> Tensor:
        return net.a(x) * (2 if os.environ.get("PCGRAPH_TEST") else 1)

    network = pcgraph.compile(model := Net(reads))
    x = torch.ones(3, 4)
    for value, captures in ((None, 1), (None, 1), ("1", 2), ("1", 2), (None, 2)):
        if value is None:
            monkeypatch.delenv("PCGRAPH_TEST", raising=False)
        else:
            monkeypatch.setenv("PCGRAPH_TEST", value)
        assert torch.equal(network(x, MASKS[0]), model(x, MASKS[0]))
        assert network.cache_info()["captures"] == captures


def test_logging_is_no_reason_to_capture_again() -> None:
    def talks(net: Net, x: Tensor, mask: Tensor) -> Tensor:
        logging.getLogger("pcgraph.test").warning("%s rows", len(x))
        return net.a(x)

    network = pcgraph.compile(Net(talks))
    for _ in range(3):
        network(torch.ones(3, 4), MASKS[0])
    assert network.cache_info()["captures"] == 1


def test_a_clock_is() -> None:
    def looks(net: Net, x: Tensor, mask: Tensor) -> Tensor:
        threading.current_thread()
        return net.a(x) * time.time()

    network = pcgraph.compile(Net(looks))
    for _ in range(3):
        network(torch.ones(3, 4), MASKS[0])
    assert network.cache_info()["captures"] == 3


def reads_a_gradient(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x) if net.a.weight.grad is None else net.a(x) * 2


def reads_an_attribute(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x) * getattr(x, "factor", 1)


def reads_the_offset(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    return net.a(x) * (1 + x.storage_offset())


def reads_shared_memory(net: Net, x: Tensor, mask: Tensor) -> Tensor:
    net.count += 1
    return net.a(x) * (2 if net.alias[0] > 2 else 1)


@pytest.mark.parametrize("body", [reads_a_gradient, reads_an_attribute, reads_the_offset, reads_shared_memory])
def test_what_is_easily_overlooked(body: Any) -> None:
    """State of tensors that is neither a value nor a shape."""
    model = Net(body)
    model.alias = model.count.view(1)
    twin = copy.deepcopy(model)
    network = pcgraph.compile(model)
    memory = torch.randn(40)
    for step in range(5):
        x = memory[step // 2 :][:12].view(3, 4)
        if step > 2:
            x.factor = step  # type: ignore[attr-defined]
        for candidate in (twin, network):
            candidate(x, MASKS[0]).sum().backward()
        assert twin.a.weight.grad is not None and model.a.weight.grad is not None
        assert torch.equal(twin.a.weight.grad, model.a.weight.grad), step
        assert torch.equal(twin.count, model.count)
