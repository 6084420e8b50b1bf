"""What the demo can be asked for. Free of torch, so that the command line can name it without a wait."""

from __future__ import annotations

from enum import StrEnum


class Source(StrEnum):
    """Data sets."""

    DIGITS = "digits"
    FASHION_MNIST = "fashion-mnist"


class Model(StrEnum):
    """Networks."""

    CONV = "conv"
    RESIDUAL = "residual"
    LSTM = "lstm"


TRAIN_IMAGES: dict[Source, int | None] = {Source.DIGITS: None, Source.FASHION_MNIST: 6400}
"""Training images unless said otherwise; None for all. All 60,000 of FashionMNIST take ten times as long."""
