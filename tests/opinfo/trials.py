"""What a network is called on, one after the other: values of its tensors, and the loss that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from tests.opinfo.losses import Loss, in_columns, of_the_last, summed, weighted
from tests.opinfo.values import as_they_are, not_finite, reversed_order, zeros_and_ties


@dataclass(frozen=True)
class Trial:
    """One call.

    Attributes:
        values: of every tensor of the model and of the call, from those of the sample.
        loss: of the outputs.
    """

    values: Callable[[Tensor], Tensor] = as_they_are
    loss: Loss = weighted


FIRST = "the sample"
TRIALS: dict[str, Trial] = {
    FIRST: Trial(),
    "reverse order": Trial(reversed_order),
    "zeros and ties": Trial(zeros_and_ties, summed),
    "NaN and infinity": Trial(not_finite),
    "errors in columns": Trial(loss=in_columns),
    "errors of the last output": Trial(loss=of_the_last),
}

CRASHES = ("grid_sample", "grid_sampler_2d", "grid_sampler_3d")
"""Of these, torch's own kernels read outside of their memory where a coordinate is not finite."""


def trials_for(name: str) -> Iterator[str]:
    """The trials that an operation or module can be put to without harm."""
    for trial in TRIALS:
        if TRIALS[trial].values is not not_finite or name.rpartition("functional.")[2] not in CRASHES:
            yield trial
