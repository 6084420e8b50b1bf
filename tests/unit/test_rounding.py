"""What counts as rounding when a fused program is compared with backprop."""

from __future__ import annotations

import torch

from pcgraph.rounding import BLIND, FLOOR, SLACK, distance, same_run

EPS = torch.finfo(torch.float32).eps


def test_a_small_multiple_of_backprops_own_distance_is_allowed() -> None:
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    backprop = exact.float() * (1 + 1e-3)
    gap, allowed = distance(backprop, backprop * (1 + 1e-3), exact)
    assert 1e-3 < gap < 3e-3 and abs(allowed - SLACK * 1e-3) < 1e-4
    assert distance(exact.float(), backprop, exact)[0] > distance(exact.float(), backprop, exact)[1] == FLOOR * EPS


def test_without_a_reference_backprop_itself_is_the_measure() -> None:
    a = torch.tensor([1.0, 2.0])
    assert distance(a, a * (1 + 1e-4), None)[1] == BLIND
    gap, allowed = distance(a.double(), a.double() * (1 + 1e-9), a.double())
    assert gap > allowed  # in float64 nothing finer tells, and less is allowed


def test_what_cancels_out_is_measured_by_what_cancelled() -> None:
    zero, noise = torch.zeros(3), torch.full((3,), 3e-8)
    assert distance(zero, noise, zero.double() + 1e-17)[0] > distance(zero, noise, zero.double() + 1e-17)[1]
    gap, allowed = distance(zero, noise, zero.double() + 1e-17, among=1.0)
    assert gap <= allowed


def test_infinities_have_to_be_in_the_same_places() -> None:
    a = torch.tensor([1.0, float("inf")])
    assert distance(a, a.clone(), None) == (0.0, BLIND)
    assert distance(a, torch.tensor([1.0, 2.0]), None) == (float("inf"), 0.0)


def test_a_reference_with_other_random_numbers_is_told_apart() -> None:
    a = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert same_run(a, a.double() + 1e-7)
    assert not same_run(a, torch.randn(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    assert not same_run(torch.tensor([1, 2]), torch.tensor([1, 3]))
