"""Every model of the zoo, compiled, learns what backprop learns: equal to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import nn

import pcgraph
from tests.equality import Pair, assert_exact, difference
from tests.zoo import ZOO, Case

SGD = functools.partial(torch.optim.SGD, lr=5e-3, momentum=0.9)
ADAMW = functools.partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.01)
FLOAT32 = [pytest.param(case, id=name) for name, case in ZOO.items()]
BATCHED = [pytest.param(case, id=name) for name, case in ZOO.items() if case.rebatch is not None]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        pytest.param(case, dtype, id=f"{name}-{str(dtype).removeprefix('torch.')}")
        for name, case in ZOO.items()
        for dtype in case.dtypes
    ],
)
def test_one_step(case: Case, dtype: torch.dtype) -> None:
    assert_exact(case, dtype)


@pytest.mark.parametrize("case", FLOAT32)
def test_value_nodes_on_layers(case: Case) -> None:
    assert_exact(
        case, torch.float32, steps=2, optimizer=SGD, compiler=functools.partial(pcgraph.compile, value_nodes="layers")
    )


@pytest.mark.parametrize("optimizer", [pytest.param(SGD, id="sgd"), pytest.param(ADAMW, id="adamw")])
@pytest.mark.parametrize("case", FLOAT32)
def test_twenty_steps(case: Case, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    assert_exact(case, torch.float32, steps=20, optimizer=optimizer)


@pytest.mark.parametrize("case", BATCHED)
def test_another_batch_size(case: Case) -> None:
    pair = Pair(case)
    assert case.rebatch is not None
    pair.step(seed=1)
    pair.step(case.rebatch(pair.args), seed=2)
    pair.step(seed=3)


@pytest.mark.parametrize("case", FLOAT32)
def test_train_eval_train(case: Case) -> None:
    pair = Pair(case, optimizer=SGD)
    pair.step(seed=1)
    pair.mode(False)
    pair.step(seed=2, backward=False)
    pair.step(seed=3)
    pair.mode(True)
    pair.step(seed=4)


def test_the_models_learn() -> None:
    """The zoo tests something: in plain torch every model has finite gradients, and not only zeros."""
    for name, case in ZOO.items():
        model, args, kwargs = case.build()
        loss = case.loss(model(*args, **kwargs))
        leaves = [
            *model.parameters(),
            *(a for a in torch.utils._pytree.tree_leaves((args, kwargs)) if torch.is_tensor(a)),
        ]
        leaves = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [g for g in torch.autograd.grad(loss, leaves, allow_unused=True) if g is not None]
        assert loss.isfinite(), name
        assert gradients and all(g.isfinite().all() for g in gradients), name
        assert sum(bool(g.any()) for g in gradients) > len(gradients) / 2, name


def test_a_difference_of_one_ulp_is_seen() -> None:
    """The comparison itself: a compiler that disturbs one gradient in the last bit is found out, and named."""

    def disturbing(model: nn.Module) -> Callable[..., object]:
        def nudge(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            parameter.grad[1] = torch.nextafter(parameter.grad[1], torch.tensor(9.0))

        model.get_parameter("2.bias").register_post_accumulate_grad_hook(nudge)
        return model

    with pytest.raises(
        AssertionError, match=r"gradient of 2\.bias .* 1 of 16 entries differ, at most by 1 ulp; first at \[1\]"
    ):
        assert_exact(ZOO["mlp_tanh"], compiler=disturbing)


@pytest.mark.parametrize("name", ["nn_lstm", "nn_lstm_bidirectional"])
def test_close_to_the_fused_lstm(name: str) -> None:
    """oneDNN's fused float32 kernel rounds in another order than the unrolled network: 1e-6 relative."""
    import pcgraph

    case = ZOO[name]
    gradients = []
    for compiler in (lambda model: model, pcgraph.compile):
        model, args, kwargs = case.build()
        torch.manual_seed(0)
        case.loss(compiler(model)(*args, **kwargs)).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    fused, unrolled = gradients
    for key, gradient in fused.items():
        other = unrolled[key]
        assert gradient is not None and other is not None
        assert (gradient - other).norm() <= 1e-6 * gradient.norm(), f"{key}: {difference(gradient, other)}"
