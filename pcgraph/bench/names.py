"""What the benchmark can be asked for. Free of torch, so that the command line can name it without a wait."""

from __future__ import annotations

MODELS: dict[str, str] = {
    "mlp-64": "MLP 784-64x4-10, batch 20",
    "mlp-512": "MLP 784-512x4-10, batch 64",
    "lenet": "LeNet, 28x28, batch 64",
    "alexnet": "AlexNet's shape without dropout, 32x32, batch 64",
    "vgg11": "VGG-11 with batch norm, 32x32, batch 16",
    "resnet18": "ResNet-18 for CIFAR, 32x32, batch 16",
    "resnet50": "ResNet-50, 224x224, batch 2",
    "rnn-50": "tanh RNN by hand, 50 steps, batch 32",
    "rnn-200": "the same, 200 steps",
    "rnn-1000": "the same, 1,000 steps",
    "rnn-5000": "the same, 5,000 steps",
    "lstm-50": "LSTM by hand, 50 steps, batch 32",
    "lstm-200": "the same, 200 steps",
    "lstm-1000": "the same, 1,000 steps",
    "lstm-5000": "the same, 5,000 steps",
    "nn-lstm-50": "nn.LSTM, 50 steps, batch 32; a fused kernel in backprop, unrolled in pcgraph",
    "deep-1000": "tanh MLP of 1,000 layers of 64, batch 20",
    "gpt-4": "GPT of 4 layers, d=128, 64 tokens, batch 8",
    "moe": "mixture of 8 experts behind a router, d=64, 512 tokens",
    "il-mlp": "tanh MLP 784-300x3-10, squared loss, batch 64; the SGD step is part of it",
}
"""Every built-in model and what it is."""

QUICK: tuple[str, ...] = ("mlp-64", "lenet", "rnn-50")
"""What runs unless something else is asked for."""

BASE, AGAIN = "backprop", "backprop again"
CONTENDERS: dict[str, str] = {
    BASE: "eager backprop; every ratio is to its time",
    AGAIN: "the same once more (A/A): says which differences mean nothing",
    "unrolled": "eager backprop through one step per time, where the model has a fused recurrent kernel",
    "pcgraph": "loss(pcn(x), y).backward()",
    "pcgraph step": "pcn.step(x, y, loss): the same in one call",
    "pcgraph low": "pcgraph.compile(model, memory='low'), two calls",
    "il": "pcn.learn: inference learning, compiled, with gamma = 0.1",
    "torch.compile": "backprop through torch.compile(model)",
    "inductor": "pcgraph.compile(model, backend='inductor'), two calls",
    "inductor step": "the same in one call",
    "inductor sgd": "pcn.step(x, y, loss, optimizer): SGD in the same call, where a model has it",
    "inductor il": "inference learning under inductor; SGD in the same call, where a model has it",
    "simulation": "pcn.simulate: Z-IL with every node updated at every step",
    "il simulation": "pcn.simulate of the same inference learning",
}
"""Every contender in the order in which they are prepared: what can break off a process comes last."""
