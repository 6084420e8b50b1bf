"""The unrolled recurrent kernels against the native ones: outputs, final states, gradients, random state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.overrides import TorchFunctionMode

from pcgraph.capture.recurrent import UNROLLED

# 37 is two vector blocks and a rest in either precision: kernels treat the rest differently, so order and strides show.
INPUT, HIDDEN, BATCH, LENGTHS = 5, 37, 4, (7, 5, 5, 2)
KINDS = ("RNN_TANH", "RNN_RELU", "LSTM", "GRU")
EXACT = [(kind, dtype) for kind in KINDS for dtype in (torch.float32, torch.float64, torch.bfloat16)]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # What torch says the first time oneDNN is switched, and where it declines a projection.
    pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN", "ignore:LSTM with projections"),
]


class Unroll(TorchFunctionMode):
    """Puts the replacement in the place of the builtin, as the capture does."""

    def __init__(self) -> None:
        super().__init__()
        self.unrolled = self.refused = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in UNROLLED:
            result = UNROLLED[func](*args, **(kwargs or {}))
            if result is not NotImplemented:
                self.unrolled += 1
                return result
            self.refused += 1
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Names of the calls made while active, attribute reads left out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ != "__get__":
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Run(NamedTuple):
    results: list[Tensor]
    gradients: list[Tensor]
    random_state: Tensor


@pytest.fixture
def no_onednn() -> Iterator[None]:
    """Native float32 LSTMs by ATen's own code; oneDNN's fused kernel rounds differently (see `test_onednn`)."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def make(kind: str, seed: int = 0, **options: Any) -> nn.RNNBase:
    torch.manual_seed(seed)
    if kind.startswith("RNN"):
        return nn.RNN(INPUT, HIDDEN, nonlinearity=kind[4:].lower(), **options)
    return getattr(nn, kind)(INPUT, HIDDEN, **options)


def data(module: nn.RNNBase, length: int = 7, batch: int = BATCH) -> tuple[Tensor, list[Tensor]]:
    """Input and initial state(s) that fit the module."""
    dtype = next(module.parameters()).dtype
    x = torch.randn(*((batch, length) if module.batch_first else (length, batch)), INPUT, dtype=dtype)
    cells = module.num_layers * (2 if module.bidirectional else 1)
    states = [torch.randn(cells, batch, module.proj_size or HIDDEN, dtype=dtype)]
    if module.mode == "LSTM":
        states.append(torch.randn(cells, batch, HIDDEN, dtype=dtype))
    return x, states


def flatten(result: Any) -> list[Tensor]:
    if isinstance(result, PackedSequence):
        return [result.data]
    return [result] if isinstance(result, Tensor) else [tensor for part in result for tensor in flatten(part)]


def run(
    module: nn.RNNBase,
    x: Tensor,
    states: list[Tensor],
    mode: Any,
    wrap: Callable[[Tensor], Any] = lambda x: x,
    only: int | None = None,
) -> Run:
    """One prediction and its gradients by x, parameters and states; `only` lets the loss see one of the results."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, *states)]
    hx = tuple(leaves[1:]) if len(states) == 2 else leaves[1] if states else None
    torch.manual_seed(1)
    with mode:
        results = flatten(module(wrap(leaves[0]), hx))
    random_state = torch.get_rng_state()
    heads = results if only is None else [results[only]]
    errors = [torch.randn_like(head) for head in heads]
    gradients = torch.autograd.grad(heads, [*leaves, *module.parameters()], errors, materialize_grads=True)
    return Run(results, list(gradients), random_state)


def assert_same(module: nn.RNNBase, x: Tensor, states: list[Tensor], **options: Any) -> None:
    native = run(module, x, states, nullcontext(), **options)
    unrolled = run(module, x, states, mode := Unroll(), **options)
    assert (mode.unrolled, mode.refused) == (1, 0)
    for expected, got in zip(native.results, unrolled.results, strict=True):
        assert torch.equal(got, expected)
        assert (got.dtype, got.stride()) == (expected.dtype, expected.stride())
    for expected, got in zip(native.gradients, unrolled.gradients, strict=True):
        assert torch.equal(got, expected)
    assert torch.equal(unrolled.random_state, native.random_state)


def test_table_names_the_builtins_that_a_mode_sees() -> None:
    assert set(UNROLLED) == {torch._VF.rnn_tanh, torch._VF.rnn_relu, torch._VF.lstm, torch._VF.gru}
    for kind in KINDS:
        with Unroll() as mode:
            make(kind)(torch.randn(2, 3, INPUT))
        assert mode.unrolled == 1


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time", "batch"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize(("layers", "dropout"), [(1, 0.0), (2, 0.0), (2, 0.3)])
@pytest.mark.parametrize(("kind", "dtype"), EXACT)
def test_options(
    kind: str, dtype: torch.dtype, layers: int, dropout: float, bidirectional: bool, batch_first: bool, bias: bool
) -> None:
    module = make(
        kind,
        num_layers=layers,
        dropout=dropout,
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
        dtype=dtype,
    )
    for length in (1, 7):
        x, states = data(module, length)
        assert_same(module, x, states)
        assert_same(module, x, [])


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection(dtype: torch.dtype, bidirectional: bool, bias: bool) -> None:
    module = make("LSTM", num_layers=2, proj_size=3, dropout=0.3, bidirectional=bidirectional, bias=bias, dtype=dtype)
    for length in (1, 7):
        x, states = data(module, length)
        assert_same(module, x, states)
        assert_same(module, x, [])


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize(
    ("kind", "dtype", "proj_size"),
    [*((*case, 0) for case in EXACT), ("LSTM", torch.float32, 3), ("LSTM", torch.float64, 3)],
)
def test_packed(kind: str, dtype: torch.dtype, proj_size: int, bidirectional: bool, is_sorted: bool) -> None:
    options = {"proj_size": proj_size} if proj_size else {}
    module = make(kind, num_layers=2, dropout=0.3, bidirectional=bidirectional, dtype=dtype, **options)
    x, states = data(module)
    lengths = torch.tensor(LENGTHS if is_sorted else LENGTHS[::-1])
    for given in (states, []):
        assert_same(module, x, given, wrap=lambda x: pack_padded_sequence(x, lengths, enforce_sorted=is_sorted))


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize(("kind", "dtype"), EXACT)
def test_unbatched_and_single(kind: str, dtype: torch.dtype) -> None:
    module = make(kind, bidirectional=True, dtype=dtype)
    x, states = data(module, batch=1)
    assert_same(module, x, states)
    assert_same(module, x[:, 0], [state[:, 0] for state in states])


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize(("kind", "dtype"), EXACT)
def test_two_threads(kind: str, dtype: torch.dtype) -> None:
    """37,000 elements a gate: more than one thread's share, so element-wise kernels split their work."""
    torch.set_num_threads(2)
    module = make(kind, bidirectional=True, dtype=dtype)
    assert_same(module, *data(module, length=2, batch=1000))


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("kind", KINDS)
def test_loss_at_one_result(kind: str) -> None:
    module = make(kind, num_layers=2, bidirectional=True)
    x, states = data(module)
    for only in range(1 + len(states)):
        assert_same(module, x, states, only=only)


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("kind", KINDS)
def test_eval_draws_nothing(kind: str) -> None:
    module = make(kind, num_layers=2, dropout=0.9).eval()
    assert_same(module, *data(module))


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("kind", KINDS)
def test_autocast(kind: str) -> None:
    module = make(kind, num_layers=2)
    x, states = data(module)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(module, x, states)


@pytest.mark.parametrize("kind", KINDS)
def test_default_backends(kind: str) -> None:
    """With oneDNN on, all that ATen does not hand to it is bitwise: the LSTM's other dtype, projection and packing."""
    module = make(kind, dtype=torch.float64)
    assert_same(module, *data(module))
    module = make(kind, **({"proj_size": 3} if kind == "LSTM" else {}))
    x, states = data(module)
    assert_same(module, x, states)
    module = make(kind)
    x, states = data(module)
    assert_same(module, x, states, wrap=lambda x: pack_padded_sequence(x, torch.tensor(LENGTHS)))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "nobias"])
def test_onednn(bidirectional: bool, bias: bool, dropout: float) -> None:
    """A padded float32 LSTM runs in oneDNN's fused kernel.

    It has exponentials and an order of sums of its own, so bitwise equality with it is out of reach of separate
    operations: 1e-6 relative, by the norm of each tensor, about ten float32 roundings. The random stream is the same.
    """
    module = make("LSTM", num_layers=2, bidirectional=bidirectional, bias=bias, dropout=dropout)
    x, states = data(module)
    native, unrolled = run(module, x, states, nullcontext()), run(module, x, states, Unroll())
    for expected, got in zip(native.results + native.gradients, unrolled.results + unrolled.gradients, strict=True):
        assert (got - expected).norm() <= 1e-6 * expected.norm()
    assert torch.equal(unrolled.random_state, native.random_state)


@pytest.mark.parametrize("kind", KINDS)
def test_both_overloads_by_keyword(kind: str) -> None:
    builtin = getattr(torch, kind.lower())
    module = make(kind)
    x, states = data(module)
    hx = tuple(states) if kind == "LSTM" else states[0]
    shared = {"num_layers": 1, "dropout": 0.0, "train": True, "bidirectional": False}
    weights = {"hx": hx, "params": module._flat_weights, "has_biases": True}
    padded = {"input": x, **weights, **shared, "batch_first": False}
    packed = {"data": x.reshape(-1, INPUT), "batch_sizes": torch.tensor([BATCH] * 7), **weights, **shared}
    with torch.backends.mkldnn.flags(enabled=False):
        for call in (padded, packed):
            for given in range(len(call) + 1):  # so many by position, the rest by keyword
                args, kwargs = list(call.values())[:given], dict(list(call.items())[given:])
                for expected, got in zip(builtin(*args, **kwargs), UNROLLED[builtin](*args, **kwargs), strict=True):
                    assert torch.equal(got, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
def test_calls_grow_linearly_and_none_is_in_place(kind: str, bidirectional: bool) -> None:
    module = make(kind, num_layers=2, bidirectional=bidirectional)
    counts = []
    for length in (10, 20, 30):
        with Calls() as calls, Unroll():
            module(data(module, length)[0])
        counts.append(len(calls.names))
        assert calls.names.count("linear") == (2 if bidirectional else 1) * 2 * (length + 1)  # inputs in one call
        assert not [name for name in calls.names if name.endswith("_") and not name.startswith("__")]
    assert counts[2] - counts[1] == counts[1] - counts[0] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_long_sequence_needs_no_recursion(kind: str) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        module = make(kind)
        x, states = data(module, length=3000, batch=1)
        assert_same(module, x, states)


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_before_it_computes(kind: str) -> None:
    module = make(kind)
    builtin = getattr(torch, kind.lower())
    x, states = data(module)
    flat: list[Tensor] = list(module.parameters())

    def ask(x: Tensor, states: list[Tensor], params: list[Tensor], sizes: Tensor | None = None) -> Any:
        hx = tuple(states) if kind == "LSTM" else states[0]
        head, tail = ((x,), (False,)) if sizes is None else ((x, sizes), ())
        with Calls() as calls:
            result = UNROLLED[builtin](*head, hx, params, True, 1, 0.0, True, False, *tail)
        if result is NotImplemented:
            assert set(calls.names) <= {"dim", "tolist"}
        return result

    assert ask(x, states, flat) is not NotImplemented
    assert ask(x[:0], states, flat) is NotImplemented
    assert ask(x[0], states, flat) is NotImplemented
    assert ask(x[0, 0], states, flat) is NotImplemented
    assert ask(x, states, flat[:-1]) is NotImplemented
    assert ask(x, [s[:, :1] for s in states], flat) is NotImplemented  # ATen refuses to broadcast it
    assert ask(x, [torch.cat([s, s]) for s in states], flat) is NotImplemented
    rows = x.reshape(-1, INPUT)
    assert ask(rows, states, flat, torch.tensor([BATCH] * 7)) is not NotImplemented
    assert ask(rows, states, flat, torch.tensor([BATCH] * 6)) is NotImplemented
    assert ask(rows, states, flat, torch.tensor([], dtype=torch.int64)) is NotImplemented
    assert ask(rows, states, flat, torch.tensor([BATCH - 1, *[BATCH] * 6, 1])) is NotImplemented


def test_empty_sequence_raises_the_native_error() -> None:
    for kind in KINDS:
        module = make(kind, dtype=torch.float64)
        x = torch.zeros(0, BATCH, INPUT, dtype=torch.float64)
        with pytest.raises(RuntimeError, match="sequence length to be larger than 0"), Unroll() as mode:
            module(x)
        assert (mode.unrolled, mode.refused) == (0, 1)
