"""Which networks are exported how: by torch's older exporter, which traces, and by the newer one (``dynamo=True``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tests.onnx_zoo import architectures as nets
from tests.zoos.specimen import seed_all

Feed = Callable[[int], tuple[Tensor, ...]]
EXPORTED, JUDGED = 2, (3, 5)  # batch sizes

# The lowest and the highest opset of each exporter: the newer one writes 18 whatever lower one it is asked for.
USUAL = ("ts11", "ts17", "dynamo18", "dynamo23")
ALL = ("ts11", "ts13", "ts16", "ts20", "ts23", "dynamo18", "dynamo20", "dynamo21", "dynamo23")


@dataclass(frozen=True)
class Export:
    """A network, and how it is written.

    Attributes:
        network: its name.
        make: builds it; run seeded.
        feed: arguments for a batch of so many; run seeded.
        dynamo: which of torch's exporters.
        opset: that is asked for.
        train: whether it is exported in training mode.
    """

    network: str
    make: Callable[[], nn.Module]
    feed: Feed
    dynamo: bool
    opset: int
    train: bool

    @property
    def name(self) -> str:
        """Unique in the zoo."""
        return f"{self.network}.{'dynamo' if self.dynamo else 'ts'}{self.opset}{'.train' if self.train else ''}"

    def build(self) -> nn.Module:
        """The network, nothing in it equal, zero or one: behind a zero no gradient can be told from another."""
        seed_all(sum(map(ord, self.network)))
        model = self.make().train(self.train)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.02)
            for name, buffer in model.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(std=0.1)
                if name.endswith("running_var"):
                    buffer.uniform_(0.5, 1.5)
        return model

    def call(self, batch: int, seed: int) -> tuple[Tensor, ...]:
        """Arguments, the same ones for the same seed."""
        seed_all(seed)
        return self.feed(batch)


def _images(side: int) -> Feed:
    return lambda batch: (torch.randn(batch, 3, side, side),)


def _vectors(*shape: int) -> Feed:
    return lambda batch: (torch.randn(batch, *shape),)


def _tokens(length: int) -> Feed:
    """Tokens and a mask in which the last of every second text are padding."""

    def feed(batch: int) -> tuple[Tensor, ...]:
        mask = torch.ones(batch, length, dtype=torch.int64)
        mask[::2, -2:] = 0
        return torch.randint(3, 99, (batch, length)), mask

    return feed


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Feed, tuple[str, ...]]] = {
    "mlp": (nets.mlp, _vectors(6), (*ALL, "ts11.train", "ts23.train")),
    "lstm": (lambda: nets.Recurrent(nn.LSTM), _vectors(5, 6), (*USUAL, "ts11.train", "ts23.train")),
    "gru": (lambda: nets.Recurrent(nn.GRU), _vectors(5, 6), (*USUAL, "ts11.train", "ts23.train")),
    "rnn": (lambda: nets.Recurrent(nn.RNN), _vectors(5, 6), (*USUAL, "ts23.train")),
    "lstm-bidirectional-2": (
        lambda: nets.Recurrent(nn.LSTM, num_layers=2, bidirectional=True), _vectors(5, 6), (*USUAL, "ts23.train"),
    ),
    "unet": (nets.UNet, _images(16), (*ALL, "ts11.train", "ts23.train")),
    "resnet18": (lambda: nets.vision("resnet18"), _images(64), (*USUAL, "ts11.train", "ts23.train")),
    "densenet121": (lambda: nets.vision("densenet121"), _images(64), ("ts11", "ts23", "dynamo18", "dynamo23")),
    "mobilenet-v3-large": (
        lambda: nets.vision("mobilenet_v3_large", dropout=0.0), _images(64), (*USUAL, "ts23.train"),
    ),
    "efficientnet-b0": (
        lambda: nets.vision("efficientnet_b0", dropout=0.0, stochastic_depth_prob=0.0), _images(64),
        (*USUAL, "ts23.train"),
    ),
    "convnext-tiny": (
        lambda: nets.vision("convnext_tiny", stochastic_depth_prob=0.0), _images(64), (*USUAL, "ts23.train"),
    ),
    "vit-b-16": (lambda: nets.vision("vit_b_16", image_size=64), _images(64), ("ts13", "ts23", "dynamo18", "dynamo23")),
    "swin-t": (
        lambda: nets.vision("swin_t"), _images(64), ("ts11", "ts23", "dynamo18", "dynamo23"),
    ),
    "mixer": (nets.mixer, _images(32), (*USUAL, "ts23.train")),
    "bert": (lambda: nets.bert(32, 4, "sdpa"), _tokens(7), ("ts14", "ts20", "dynamo18", "dynamo23", "ts23.train")),
    "bert-eager": (lambda: nets.bert(32, 4, "eager"), _tokens(7), ("ts11", "ts23", "dynamo18")),
    "bert-heads-of-64": (lambda: nets.bert(256, 4, "sdpa"), _tokens(12), ("ts14", "dynamo23")),
    "gpt2": (lambda: nets.gpt2(32, 4, "sdpa"), _tokens(7), ("ts14", "ts20", "dynamo18", "dynamo23", "ts23.train")),
    "gpt2-eager": (lambda: nets.gpt2(32, 4, "eager"), _tokens(7), ("ts11", "ts23", "dynamo18")),
    "gpt2-heads-of-64": (lambda: nets.gpt2(256, 4, "sdpa"), _tokens(12), ("ts14", "dynamo23")),
    "encoder": (nets.encoder, _vectors(5, 32), ("ts14", "ts17", "dynamo18", "dynamo23", "ts23.train")),
}  # fmt: skip


def exports() -> dict[str, Export]:
    """All of them, by name."""
    return {export.name: export for export in _all()}


def _all() -> Iterator[Export]:
    for network, (make, feed, ways) in NETWORKS.items():
        for way in ways:
            kind, _, mode = way.partition(".")
            dynamo = kind.startswith("dynamo")
            opset = int(kind.removeprefix("dynamo").removeprefix("ts"))
            yield Export(network, make, feed, dynamo, opset, mode == "train")
