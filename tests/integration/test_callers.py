"""What callers do with a network, each thing done with the plain model, too: the same, or an error with the way out."""

from __future__ import annotations

import copy
import enum
import gc
import inspect
import io
import pickle
import random
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd import functional as autograd_functional
from torch.nn.utils import parametrize, prune
from torch.utils._pytree import register_pytree_node
from torch.utils.flop_counter import FlopCounterMode

import pcgraph
from pcgraph.errors import CaptureError, LearnError, PCGraphError
from tests.equality import difference

X = torch.linspace(-1, 1, 20).reshape(5, 4)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def smooth() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def tensors(value: Any) -> list[Any]:
    """The leaves of nested results."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in (key, *tensors(value[key]))]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in tensors(part)]
    return [value.detach().clone() if isinstance(value, Tensor) else value]


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [p.grad for p in model.parameters()]


def assert_same(scene: Callable[[Any], Any], make: Callable[[], nn.Module] = net, warm: bool = True) -> None:
    """The scene gives the same with a model as with its network: a fresh one, and one that was called before."""
    for called in (False, True) if warm else (False,):
        results = []
        plain = make()
        for candidate in (plain, pcgraph.compile(copy.deepcopy(plain))):
            if called:
                torch.manual_seed(1)
                candidate(X)
            torch.manual_seed(3)
            results.append(tensors(scene(candidate)))
        assert len(results[0]) == len(results[1])
        for k, (one, two) in enumerate(zip(*results, strict=True)):
            if isinstance(one, Tensor):
                message = difference(one, two)
                assert message is None, f"{k}: {message}"
            else:
                assert one == two, k


# -- hooks on the network -----------------------------------------------------------------------------------
def forward_hooks(m: Any) -> Any:
    log: list[Any] = []
    m.register_forward_pre_hook(lambda mod, args: log.append("before") or (args[0] * 2,))
    m.register_forward_hook(lambda mod, args, kwargs, out: log.append(sorted(kwargs)) or out * 3, with_kwargs=True)
    m.register_forward_hook(lambda mod, args, out: log.append("always"), always_call=True)
    y = m(X)
    with pytest.raises(RuntimeError):
        m(torch.ones(2, 7))
    y.square().sum().backward()
    return y, log, gradients(m)


def backward_hooks(m: Any) -> Any:
    log: list[Any] = []
    hook = m.register_full_backward_hook(lambda mod, gi, go: log.append((gi, go)) or (gi[0] * 2,))
    m.register_full_backward_pre_hook(lambda mod, go: (go[0] * 3,))
    x = X.clone().requires_grad_()
    y = m(x)
    y.square().sum().backward()
    hook.remove()
    m(x).sum().backward()
    return y, log, gradients(m), x.grad


def backward_hook_without_a_gradient_of_the_input(m: Any) -> Any:
    log: list[Any] = []
    m.register_full_backward_hook(lambda mod, gi, go: log.append((gi, go)))
    m(X).square().sum().backward()
    return log, gradients(m)


def state_hooks(m: Any) -> Any:
    log: list[Any] = []
    m.register_state_dict_pre_hook(lambda mod, prefix, keep: log.append("before saving"))
    m.register_state_dict_post_hook(lambda mod, state, prefix, meta: log.append("after saving"))
    m.register_load_state_dict_pre_hook(lambda mod, state, *rest: log.append("before loading"))
    m.register_load_state_dict_post_hook(lambda mod, keys: log.append("after loading"))
    m.load_state_dict(m.state_dict())
    outer = nn.Sequential(m)
    outer.load_state_dict(outer.state_dict())
    return log


def hooks_of_a_copy(m: Any) -> Any:
    log: list[Any] = []
    m.register_forward_hook(lambda mod, args, out: log.append("forward"))
    m.register_full_backward_hook(lambda mod, gi, go: log.append("backward"))
    for twin in (copy.deepcopy(m), copy.copy(m)):
        twin(X.clone().requires_grad_()).sum().backward()
    return log


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    "scene",
    [forward_hooks, backward_hooks, backward_hook_without_a_gradient_of_the_input, state_hooks, hooks_of_a_copy],
    ids=lambda f: f.__name__,
)
def test_hooks_on_a_network(scene: Callable[[Any], Any]) -> None:
    assert_same(scene)


def test_hooks_on_a_network_inside_of_a_network() -> None:
    def scene(m: Any) -> Any:
        torch.manual_seed(1)
        outer: Any = nn.Sequential(m, nn.Linear(3, 2))
        if isinstance(m, pcgraph.PCNetwork):
            outer = pcgraph.compile(outer)
        log: list[str] = []
        m.register_forward_hook(lambda *_: log.append("forward"))
        m.register_full_backward_hook(lambda *_: log.append("backward"))
        for _ in range(2):
            outer(X.clone().requires_grad_()).square().sum().backward()
        return gradients(outer), log

    assert_same(scene)


def test_backward_hooks_of_the_old_kind_are_refused() -> None:
    with pytest.raises(PCGraphError, match="register_full_backward_hook"):
        pcgraph.compile(net()).register_backward_hook(lambda *_: None)


# -- being a module -----------------------------------------------------------------------------------------
def registered(m: Any) -> Any:
    m.register_buffer("a", torch.ones(2))
    m.register_buffer("b", torch.ones(2), persistent=False)
    m.register_parameter("c", nn.Parameter(torch.ones(3)))
    m.register_module("d", nn.Linear(4, 4))
    m.add_module("e", nn.Tanh())
    names = [n for named in (m.named_parameters(), m.named_buffers(), m.named_children()) for n, _ in named]
    del m.d, m.e
    return names, list(m.state_dict()), [n for n, _ in m.named_modules()], len(list(m.modules()))


def moved(m: Any) -> Any:
    same = [m.bfloat16() is m, m.double() is m, m.requires_grad_(False) is m, m.requires_grad_(True) is m]
    y = m(X.double())
    y.sum().backward()
    m.share_memory()
    m.zero_grad(set_to_none=False)
    zero = tensors(gradients(m))
    m.zero_grad()
    return same, y, zero, gradients(m), all(p.is_shared() for p in m.parameters())


def saved(m: Any) -> Any:
    file = io.BytesIO()
    torch.save(m, file)
    file.seek(0)
    results = []
    for twin in (torch.load(file, weights_only=False), pickle.loads(pickle.dumps(m)), copy.copy(m)):
        y = twin(X)
        y.sum().backward()
        results.append((y, gradients(twin), gradients(m)))
    return results


def shallow_copy_has_a_mode_of_its_own(m: Any) -> Any:
    twin = copy.copy(m).train(False)
    return m.training, twin.training, m[0] is twin[0]


def averaged(m: Any) -> Any:
    average = torch.optim.swa_utils.AveragedModel(m)
    optimizer = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.DataParallel(m)(X).square().sum().backward()
        nn.utils.clip_grad_norm_(m.parameters(), 0.1)
        optimizer.step()
        average.update_parameters(m)
    torch.optim.swa_utils.update_bn([X], average)
    return (
        average(X),
        list(average.parameters()),
        list(average.buffers()),
        nn.utils.parameters_to_vector(m.parameters()),
    )


def pruned(m: Any) -> Any:
    prune.l1_unstructured(m[0], "weight", amount=0.5)
    nn.utils.spectral_norm(m[3])
    m(X).sum().backward()
    return gradients(m), [n for n, _ in m.named_parameters()]


def edited(m: Any) -> Any:
    m.set_submodule("2", nn.ReLU())
    m += nn.Sequential(nn.Linear(3, 2, bias=False))
    nn.init.ones_(m[-1].weight)
    del m[1]
    y = m(X)
    y.sum().backward()
    return (
        y,
        gradients(m),
        len(m),
        type(m.get_submodule("0")).__name__,
        len(m + nn.Sequential(nn.Tanh())),
        m.extra_repr(),
    )


def shared_with_another(m: Any) -> Any:
    torch.manual_seed(1)
    other: Any = nn.Sequential(m[0], nn.Tanh(), nn.Linear(6, 6))
    if isinstance(m, pcgraph.PCNetwork):
        other = pcgraph.compile(other)
    for one, two in ((m, other), (other, m)):
        (one(X).sum() + two(X).square().sum()).backward()
    return gradients(m), gradients(other)


@pytest.mark.parametrize(
    "scene",
    [
        registered, moved, saved, shallow_copy_has_a_mode_of_its_own, averaged, pruned, edited, shared_with_another,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_a_network_is_a_module(scene: Callable[[Any], Any]) -> None:
    assert_same(scene)


class Own(nn.Module):
    """Has ideas of its own about what a module is."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.frozen, self.log = nn.Linear(4, 3), nn.Linear(3, 3), list[str]()

    def parameters(self, recurse: bool = True) -> Any:
        return self.a.parameters(recurse)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.log.append("zero_grad")
        super().zero_grad(set_to_none)

    def double(self) -> Own:
        self.log.append("double")
        return super().double()

    def __enter__(self) -> Own:
        self.log.append("enter")
        return self

    def __exit__(self, *error: object) -> None:
        self.log.append("exit")

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(self.a(x))


def test_methods_that_the_model_overrides() -> None:
    def scene(m: Any) -> Any:
        with m as same:
            m(X).sum().backward()
        m.zero_grad()
        return same is m, m.double() is m, len(list(m.parameters())), m.log, gradients(m)

    assert_same(scene, Own)


def test_the_signature_is_the_models() -> None:
    """Trainers read from it which columns of a data set the model wants."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, ids: Tensor, mask: Tensor | None = None, *, scale: float = 2.0) -> Tensor:
            out: Tensor = self.layer(ids) * scale
            return out if mask is None else out * mask

    model = Named()
    network, other = pcgraph.compile(model), pcgraph.compile(nn.Linear(2, 2))
    assert isinstance(network, pcgraph.PCNetwork) and network.forward.__doc__ == pcgraph.PCNetwork.forward.__doc__
    assert inspect.signature(network.forward) == inspect.signature(model.forward)
    assert inspect.signature(type(network).forward) == inspect.signature(Named.forward)
    assert list(inspect.signature(other.forward).parameters) == ["input"]
    assert list(inspect.signature(pcgraph.PCNetwork.forward).parameters) == ["self", "args", "kwargs"]
    x = torch.randn(3, 2)
    assert torch.equal(network(x, scale=3.0), model(x, scale=3.0))
    assert inspect.signature(copy.deepcopy(network).forward) == inspect.signature(model.forward)


def test_classes_of_networks_go_with_those_of_models() -> None:
    def once() -> weakref.ref[type]:
        made = type("Passing", (nn.Linear,), {})
        pcgraph.compile(made(2, 2))
        return weakref.ref(made)

    gone = once()
    gc.collect()
    assert gone() is None


def test_attributes_of_a_network_that_was_never_called() -> None:
    network = pcgraph.compile(net())
    assert not hasattr(network, "graph")
    assert dict(inspect.getmembers(network))["training"]
    with pytest.raises(PCGraphError, match="nothing has been captured"):
        network.schedule  # noqa: B018


def test_parametrizing_a_network_is_refused_and_leaves_the_others_alone() -> None:
    network = pcgraph.compile(nn.Linear(4, 3))
    with pytest.raises(PCGraphError, match=r"pcn\.module"):
        parametrize.register_parametrization(network, "weight", nn.Identity())
    assert not hasattr(pcgraph.PCNetwork, "weight")

    def scene(m: Any) -> Any:
        parametrize.register_parametrization(m[0], "weight", nn.Softplus())
        m(X).sum().backward()
        return gradients(m)

    assert_same(scene)


def test_replicas_are_refused() -> None:
    with pytest.raises(PCGraphError, match="DistributedDataParallel"):
        pcgraph.compile(net())._replicate_for_data_parallel()


# -- transforms and tracers around the network ----------------------------------------------------------------
def parameters(m: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() * 2 for name, p in m.named_parameters()}


def dual(m: Any) -> None:
    with forward_ad.dual_level():
        m(forward_ad.make_dual(X, torch.ones_like(X)))


AROUND: dict[str, Callable[[Any], object]] = {
    "vmap": lambda m: torch.func.vmap(m)(X[None]),
    "grad": lambda m: torch.func.grad(lambda x: m(x).sum())(X),
    "jvp": lambda m: torch.func.jvp(m, (X,), (X,)),
    "jacrev": lambda m: torch.func.jacrev(m)(X),
    "hessian": lambda m: torch.func.hessian(lambda x: m(x).sum())(X),
    "grad of functional_call": lambda m: torch.func.grad(
        lambda p: torch.func.functional_call(m, p, (X,)).sum()
    )(parameters(m)),
    "ensemble": lambda m: torch.func.vmap(
        lambda p, b: torch.func.functional_call(m, (p, b), (X,))
    )(*torch.func.stack_module_state([m, copy.deepcopy(m)])),
    "forward mode": dual,
    "forward mode jacobian": lambda m: autograd_functional.jacobian(m, X, vectorize=True, strategy="forward-mode"),
    "jit.trace": lambda m: torch.jit.trace(m, (X,)),
    "jit.script": torch.jit.script,
    "export": lambda m: torch.export.export(m, (X,)),
    "symbolic_trace": torch.fx.symbolic_trace,
    "symbolic_trace around": lambda m: torch.fx.symbolic_trace(nn.Sequential(m)),
    "hessian by autograd": lambda m: autograd_functional.hessian(lambda x: m(x).sum(), X),
    "jvp by autograd": lambda m: autograd_functional.jvp(m, X, X),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", AROUND)
@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called"])
def test_refused_around_a_network(what: str, called: bool) -> None:
    """Each is fine with the model itself, which the error names."""
    AROUND[what](smooth())
    network = pcgraph.compile(smooth())
    if called:
        network(X)
    with pytest.raises((CaptureError, LearnError, PCGraphError), match=r"pcn\.module"):
        AROUND[what](network)
    AROUND[what](network.module)


def test_transforms_of_a_prediction() -> None:
    def scene(m: Any) -> Any:
        with torch.no_grad(), forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(m(forward_ad.make_dual(X, X))).tangent
            return tangent, torch.func.vmap(m)(X[None])

    assert_same(scene, smooth)


def test_jacobian_and_batches_of_gradients() -> None:
    def scene(m: Any) -> Any:
        x = X.clone().requires_grad_()
        batch = torch.eye(15).reshape(15, 5, 3)
        return (
            autograd_functional.jacobian(m, X),
            autograd_functional.jacobian(m, X, vectorize=True),
            torch.autograd.grad(m(x), [x, *m.parameters()], batch, is_grads_batched=True),
        )

    assert_same(scene, smooth)


def test_functional_call_uses_the_given_parameters() -> None:
    def scene(m: Any) -> Any:
        scale = torch.tensor(2.0, requires_grad=True)
        made = {name: p * scale for name, p in m.named_parameters()}
        leaves = {name: p.detach().clone().requires_grad_() for name, p in m.named_parameters()}
        buffers = {name: b.clone() for name, b in m.named_buffers()}
        outer = nn.Sequential(m)
        some = {"0.0.weight": torch.ones(6, 4, requires_grad=True)}
        total = torch.func.functional_call(m, made, (X,)).square().sum()
        total = total + torch.func.functional_call(m, (leaves, buffers), (X,)).square().sum()
        total = total + torch.func.functional_call(outer, some, (X,)).square().sum() + m(X).sum()
        total.backward()
        given = [scale, *leaves.values(), *some.values()]
        return total, [t.grad for t in given], buffers, gradients(m), list(m.buffers())

    assert_same(scene)


@pytest.mark.parametrize("whole", [True, False], ids=["network", "around"])
def test_torch_compile_calls_a_network_as_it_is(whole: bool) -> None:
    def scene(m: Any) -> Any:
        torch._dynamo.reset()
        compiled = torch.compile(m if whole else lambda x: m(x * 2).sin(), backend="eager")
        for _ in range(2):
            y = compiled(X)
            y.square().sum().backward()
        m.compile(backend="eager")
        m(X).sum().backward()
        return y, gradients(m)

    assert_same(scene)
    network = pcgraph.compile(smooth())
    torch.compile(lambda x: network(x) * 2, backend="eager")(X)
    assert network.cache_info()["captures"] == 1


# -- arguments ----------------------------------------------------------------------------------------------
class Takes(nn.Module):
    def __init__(self, body: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.body = nn.Linear(4, 4), body

    def forward(self, *args: Any) -> Tensor:
        return self.body(self.a(args[0]), *args[1:])


class Act(enum.Enum):
    SIN, TANH = range(2)


class Mode(enum.Flag):
    A = enum.auto()
    B = enum.auto()


ARGUMENTS: dict[str, tuple[Callable[..., Tensor], list[Any]]] = {
    "enum": (lambda h, e: h.sin() if e is Act.SIN else h.tanh(), [Act.SIN, Act.TANH, Act.SIN]),
    "flag": (lambda h, f: h.sin() if Mode.B in f else h.tanh(), [Mode.A, Mode.A | Mode.B, Mode.A]),
    "slice": (lambda h, i: h[i].sin(), [slice(0, 2), slice(0, 3), slice(0, 2), slice(None)]),
    "slices": (lambda h, i: h[i].sin(), [(slice(0, 2), ...), (slice(0, 2), 1), (slice(0, 2), ...)]),
    "range": (lambda h, r: h[list(r)] * r.stop, [range(0, 3, 2), range(0, 4, 2), range(0, 3, 2)]),
    "layout": (lambda h, f: h.contiguous(memory_format=f) * 2, [torch.contiguous_format] * 2),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_arguments_that_are_compared_by_value(kind: str) -> None:
    body, values = ARGUMENTS[kind]

    def scene(m: Any) -> Any:
        results = []
        for value in values:
            y = m(X, value)
            y.square().sum().backward()
            results.append((y, gradients(m)))
        return results

    assert_same(scene, lambda: Takes(body), warm=False)
    network = pcgraph.compile(Takes(body))
    scene(network)
    assert network.cache_info()["captures"] == len({repr(v) for v in values})


class Number(int):
    scale: float


def test_arguments_with_attributes() -> None:
    """What hangs on an argument may change without the argument being another one."""

    def number(scale: float) -> Number:
        result = Number(1)
        result.scale = scale
        return result

    def scene(m: Any) -> Any:
        x: Any = X.clone()
        x.table = [1.0]
        results = []
        for k in range(4):
            x.table[0] = k // 2 + 1.0
            y = m(x, number(k // 2 + 1.0), x)
            y.sum().backward()
            results.append((y, gradients(m)))
        return results

    assert_same(scene, lambda: Takes(lambda h, n, x: h * n * n.scale + x.table[0]), warm=False)


def test_the_notes_of_torch_compile_on_an_input_are_nobodys_business() -> None:
    network, compiled = pcgraph.compile(net()), torch.compile(net(), backend="aot_eager")
    torch._dynamo.reset()
    for size in (3, 5):  # another size, and Dynamo marks the dimension on the tensor itself
        x = torch.randn(size, *X.shape[1:])
        for _ in range(2):
            compiled(x)
            network(x).sum().backward()
    assert any(name.startswith("_dynamo_") for name in vars(x))
    assert network.cache_info()["captures"] == 2 and not network.cache_info()["once"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused(layout: torch.layout) -> None:
    network = pcgraph.compile(net())
    with pytest.raises(CaptureError, match=r"nested|Nested"):
        network(torch.nested.nested_tensor([X, X[:2]], layout=layout))


# -- calls that go wrong --------------------------------------------------------------------------------------
class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(self.norm(self.a(x)), 0.5)
        if x.isnan().any():
            raise ValueError("not a number")
        return h


def test_what_a_model_did_before_it_raised() -> None:
    def scene(m: Any) -> Any:
        for x in (X * float("nan"), X):
            try:
                m(x).sum().backward()
            except ValueError:
                pass
        return list(m.buffers()), torch.get_rng_state(), gradients(m)

    assert_same(scene, Raises)


# -- several calls, several backward passes ---------------------------------------------------------------------
def interleaved(m: Any) -> Any:
    one, two, three = m(X).sum(), m(X * 2).square().sum(), m(X * 3).square().sum()
    two.backward(retain_graph=True)
    first = tensors(gradients(m))
    one.backward()
    torch.autograd.grad(three, m[3].weight)
    two.backward(inputs=[m[0].weight])
    return first, gradients(m), list(m.buffers())


def in_other_threads(m: Any) -> Any:
    loss = m(X).square().sum()
    results: list[Any] = []

    def run() -> None:
        loss.backward()
        results.append(torch.autograd.grad(m(X * 2).square().sum(), list(m.parameters())))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results, gradients(m)


def optimizers_in_hooks(m: Any) -> Any:
    optimizers = {p: torch.optim.SGD([p], 0.1) for p in m.parameters()}

    def step(p: Tensor) -> None:
        optimizers[p].step()  # type: ignore[index]
        optimizers[p].zero_grad()  # type: ignore[index]

    for p in m.parameters():
        p.register_post_accumulate_grad_hook(step)
    for _ in range(3):
        m(X).square().sum().backward()
    return list(m.parameters()), gradients(m)


def modes_around(m: Any) -> Any:
    with torch.inference_mode():
        inside = m(X * 2)
    with torch.no_grad():
        frozen = m(X)
    with torch.autograd.graph.save_on_cpu():
        kept = m(X)
    with torch.autograd.set_detect_anomaly(True):
        loss = m(X).square().sum() + kept.sum()
        loss.backward()
    scaler = torch.amp.GradScaler("cpu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = m(X)
    scaler.scale(low.float().sum()).backward()
    return inside, inside.is_inference(), frozen.requires_grad, loss, low, gradients(m), list(m.buffers())


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize(
    "scene", [interleaved, in_other_threads, optimizers_in_hooks, modes_around], ids=lambda f: f.__name__
)
def test_several_calls(scene: Callable[[Any], Any]) -> None:
    assert_same(scene)


def test_numerical_gradients() -> None:
    network = pcgraph.compile(smooth().double())
    assert torch.autograd.gradcheck(network, (X.double().requires_grad_(),), check_batched_grad=True)


def test_a_sparse_gradient_of_an_output_is_refused() -> None:
    model: Any = nn.Module()
    model.w = nn.Parameter(torch.ones(5, 4))
    model.forward = lambda x: x * model.w
    network = pcgraph.compile(model)
    for _ in range(2):
        with pytest.raises(LearnError, match="sparse"):
            network(X).backward(torch.eye(5, 4).to_sparse())
        network.zero_grad()
        network(X).sum().backward()
        assert torch.equal(model.w.grad, X)


def test_mutation_of_saved_tensors_is_refused() -> None:
    network = pcgraph.compile(smooth())
    with (
        torch.autograd.graph.allow_mutation_on_saved_tensors(),
        pytest.raises(CaptureError, match="hooks on saved tensors"),
    ):
        network(X)


# -- the network's own doings ---------------------------------------------------------------------------------
def wrapped(m: Any) -> Any:
    before = m.forward
    m.forward = lambda x: before(x) * 2
    y = m(X)
    y.sum().backward()
    twin = copy.copy(m)
    del m.forward
    return y, twin(X), m(X), gradients(m)


def nothing_returned(m: Any) -> Any:
    bare: Any = nn.Linear(4, 4)
    bare.forward = lambda x: x.shape
    models = [Takes(lambda h: None), bare]  # type: ignore[arg-type, return-value]
    if isinstance(m, pcgraph.PCNetwork):
        models = [pcgraph.compile(model) for model in models]
    return [model(X) for model in models]


def looked_at(m: Any) -> Any:
    if isinstance(m, pcgraph.PCNetwork):
        m.prepare(X)
        m.simulate(X, target=torch.zeros(5, 3))
        pcgraph.verify(m.module, (X,), rounds=1)
        with m.watch():
            m(X).sum().backward()
    else:
        m(X).sum().backward()
    return gradients(m), list(m.buffers()), torch.get_rng_state(), random.random()


@pytest.mark.parametrize("scene", [wrapped, nothing_returned], ids=lambda f: f.__name__)
def test_forward(scene: Callable[[Any], Any]) -> None:
    assert_same(scene)


def test_looking_at_a_network_leaves_no_trace() -> None:
    def scene(m: Any) -> Any:
        random.seed(0)
        return looked_at(m)

    assert_same(scene)


def test_what_runs_later_is_refused() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            for _ in range(3):
                x = self.a(x)
                yield x

    for model in (Steps(), Takes(lambda h: map(torch.sin, [h]))):  # type: ignore[arg-type, return-value]
        with pytest.raises(CaptureError, match="happens later"):
            pcgraph.compile(model)(X)


def test_another_thread_may_hook_saved_tensors_during_a_capture() -> None:
    def elsewhere() -> None:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            done.append((torch.ones(2, requires_grad=True) ** 2).sum())

    def body(h: Tensor) -> Tensor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return h.sin()

    done: list[Tensor] = []
    pcgraph.compile(Takes(body))(X)
    assert len(done) == 1


def test_a_mode_around_a_call_is_named() -> None:
    network = pcgraph.compile(nn.Linear(3, 2))
    with FlopCounterMode(display=False), pytest.raises(pcgraph.CaptureError, match=r"dispatch mode .*FlopCounterMode"):
        network(torch.ones(4, 3))
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        network(torch.ones(4, 3))
    assert flops.get_total_flops() == 2 * 4 * 3 * 2


class Unnamed:
    """A container that torch can flatten, and knows no names for the parts of."""

    def __init__(self, one: Tensor, two: Tensor) -> None:
        self.one, self.two = one, two


register_pytree_node(Unnamed, lambda both: ([both.one, both.two], None), lambda parts, _: Unnamed(*parts))


def test_a_container_without_names_for_its_parts() -> None:
    """As an argument, and as what a model returns, which `step` hands to the loss."""

    def loss(output: Unnamed, target: Tensor) -> Tensor:
        return (output.one * target + output.two).square().sum()

    plain = Takes(lambda h, both: Unnamed(h * both.one, both.two))
    network = pcgraph.compile(copy.deepcopy(plain))
    for step in (lambda m: loss(m(X, Unnamed(X, X[0])), X).backward(), None):
        plain.zero_grad()
        network.zero_grad()
        loss(plain(X, Unnamed(X, X[0])), X).backward()
        if step is not None:
            step(network)
        else:
            network.step((X, Unnamed(X, X[0])), X, loss)
        for one, two in zip(gradients(plain), gradients(network), strict=True):
            assert torch.equal(one, two)
    assert network.cache_info()["programs"] == 1  # the container alone holds what was returned: nothing is kept
    assert network.infer((X, Unnamed(X, X[0])), X, loss, pcgraph.IL(gamma=0.1, steps=3)).losses
