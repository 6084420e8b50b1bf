"""What an import makes of a file: modules, names, roles, copies of merged tensors; what can be done with the result."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

import pcgraph  # noqa: E402
from pcgraph import OnnxImportError  # noqa: E402
from tests.onnx.build import model  # noqa: E402

X = torch.linspace(-1, 1, 8).reshape(2, 4)
PERCEPTRON = """g (float[N, 4] x) => (float[N, 3] y) {
    a = MatMul(x, "onnx::MatMul_7")
    b = Add("block.0.bias", a)
    c = Relu(b)
    y = Gemm<transB = 1>(c, "block.2.weight", "block.2.bias")
}"""


def perceptron() -> tuple[onnx.ModelProto, nn.Sequential]:
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    weights = {
        "onnx::MatMul_7": net[0].weight.T,
        "block.0.bias": net[0].bias,
        "block.2.weight": net[2].weight,
        "block.2.bias": net[2].bias,
    }
    return model(PERCEPTRON, **weights), net


def parameters(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


# -- modules and names ---------------------------------------------------------------------------------------
def test_linear_modules_carry_the_names_of_the_file() -> None:
    proto, net = perceptron()
    module = pcgraph.from_onnx(proto)
    assert parameters(module) == ["block.0.weight", "block.0.bias", "block.2.weight", "block.2.bias"]
    assert isinstance(module.get_submodule("block.0"), nn.Linear)
    assert torch.equal(module.block.get_submodule("0").weight, net[0].weight)
    torch.testing.assert_close(module(X), net(X))


def test_gradients_equal_the_original_and_compiled_ones_are_exact() -> None:
    proto, net = perceptron()
    module = pcgraph.from_onnx(proto)
    assert pcgraph.verify(module, (X,)).exact
    F.mse_loss(module(X), torch.ones(2, 3)).backward()
    F.mse_loss(net(X), torch.ones(2, 3)).backward()
    for mine, theirs in zip(module.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_convolution_and_batch_norm_follow_train_and_eval() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)).eval()
    net[1].running_mean.uniform_()
    text = """g (float[N, 2, 4, 4] x) => (float[N, 3, 4, 4] y) {
        a = Conv<pads = [1, 1, 1, 1]>(x, "0.weight", "0.bias")
        y = BatchNormalization(a, "1.weight", "1.bias", "1.running_mean", "1.running_var")
    }"""
    tensors = {name: t for name, t in net.state_dict().items() if t.is_floating_point()}
    module = pcgraph.from_onnx(model(text, **tensors))
    x = torch.randn(3, 2, 4, 4)
    assert isinstance(module.get_submodule("1"), nn.BatchNorm2d) and not module.training
    torch.testing.assert_close(module(x), net(x))
    torch.testing.assert_close(module.train()(x), net.train()(x))
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name], tensor)


def test_batch_norm_before_opset_14_trains_if_it_has_more_outputs_than_one() -> None:
    net = nn.BatchNorm2d(3, momentum=0.1).train()
    text = """g (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y, float[3] m, float[3] v, float[3] sm, float[3] sv) {
        y, m, v, sm, sv = BatchNormalization(x, s, b, mean, var)
    }"""
    x = torch.randn(5, 3, 4, 4) * 2 + 1
    weights = {"s": net.weight, "b": net.bias, "mean": torch.full((3,), 0.5), "var": torch.full((3,), 2.0)}
    y, m, v, sm, sv = pcgraph.from_onnx(model(text, opset=11, **weights))(x)
    torch.testing.assert_close(y, net(x))
    population = x.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(sm, x.mean((0, 2, 3)))
    torch.testing.assert_close(sv, population)
    torch.testing.assert_close(m, 0.9 * weights["mean"] + 0.1 * x.mean((0, 2, 3)))
    torch.testing.assert_close(v, 0.9 * weights["var"] + 0.1 * population)


@pytest.mark.parametrize(
    ("text", "kind", "shapes"),
    [
        ("y = ConvTranspose<strides = [2]>(x, w, b)", nn.ConvTranspose1d, {"w": (4, 3, 3), "b": (3,)}),
        ("y = LayerNormalization(x, w, b)", nn.LayerNorm, {"w": (6,), "b": (6,)}),
        ("y = InstanceNormalization(x, w, b)", nn.InstanceNorm1d, {"w": (4,), "b": (4,)}),
        ("y = GroupNormalization<num_groups = 2>(x, w, b)", nn.GroupNorm, {"w": (4,), "b": (4,)}),
    ],
)
def test_other_modules(text: str, kind: type[nn.Module], shapes: dict[str, tuple[int, ...]]) -> None:
    weights = {name: torch.rand(shape) + 0.5 for name, shape in shapes.items()}
    proto = model(f"g (float[2, 4, 6] x) => (float[N, C, L] y) {{ {text} }}", opset=21, **weights)
    module = pcgraph.from_onnx(proto)
    assert [type(m) for m in module.modules() if not list(m.children())] == [kind]
    plain = pcgraph.from_onnx(proto_with_inputs(proto))
    x = torch.randn(2, 4, 6)
    torch.testing.assert_close(module(x), plain(x, *weights.values()))


def proto_with_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with its weights as inputs: plain functions compute it, no modules."""
    moved = copy.deepcopy(proto)
    for tensor in proto.graph.initializer:
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        moved.graph.input.append(value)
    del moved.graph.initializer[:]
    return moved


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_modules(kind: str, gates: int, both: bool) -> None:
    d = 2 if both else 1
    shapes = {"w": (d, gates * 5, 3), "r": (d, gates * 5, 5), "b": (d, 2 * gates * 5)}
    weights = {name: torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    reset = "linear_before_reset = 1, " if kind == "GRU" else ""
    direction = "bidirectional" if both else "forward"
    text = f"""g (float[T, N, 3] x) => (float[T, {d}, N, 5] y, float[{d}, N, 5] h) {{
        y, h = {kind}<{reset}hidden_size = 5, direction = "{direction}">(x, w, r, b)
    }}"""
    proto = model(text, **weights)
    module = pcgraph.from_onnx(proto)
    assert any(isinstance(m, getattr(nn, kind)) for m in module.modules())
    x = torch.randn(4, 2, 3)
    expected = pcgraph.from_onnx(proto_with_inputs(proto))(x, *weights.values())
    for mine, theirs in zip(module(x), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_an_embedding_tied_to_the_output_layer_stays_tied() -> None:
    table = torch.randn(7, 4)
    text = """g (int64[N] ids) => (float[N, 7] y) {
        e = Gather("wte.weight", ids)
        t = Transpose<perm = [1, 0]>("wte.weight")
        y = MatMul(e, t)
    }"""
    module = pcgraph.from_onnx(model(text, **{"wte.weight": table}))
    assert len(list(module.parameters())) == 1
    assert any(isinstance(m, nn.Embedding) for m in module.modules())
    assert any(isinstance(m, nn.Linear) for m in module.modules())
    ids = torch.tensor([1, 6])
    torch.testing.assert_close(module(ids), table[ids] @ table.T)
    assert pcgraph.verify(module, (ids,)).exact


def test_shape_chains_leave_sizes_behind() -> None:
    text = """g (float[N, 2, 6] x) => (float[N, K] y) {
        s = Shape(x)
        zero = Constant<value = int64 {0}>()
        n = Gather(s, zero)
        axes = Constant<value_ints = [0]>()
        n1 = Unsqueeze(n, axes)
        rest = Constant<value_ints = [-1]>()
        shape = Concat<axis = 0>(n1, rest)
        y = Reshape(x, shape)
    }"""
    module = pcgraph.from_onnx(model(text))
    assert [node.op for node in module.graph.nodes] == ["placeholder", "call_method", "call_function", "output"]
    assert module(torch.ones(3, 2, 6)).shape == (3, 12)
    assert pcgraph.from_onnx(model(text), input_shapes={"x": (5, 2, 6)})(torch.ones(5, 2, 6)).shape == (5, 12)


# -- copies -------------------------------------------------------------------------------------------------
MERGED = """g (float[N, 4] x) => (float[N, 4] y) {
    a = LayerNormalization(x, ones, zeros)
    b = LayerNormalization(a, ones, zeros)
    other = Identity(zeros)
    y = Add(b, other)
}"""


def merged() -> onnx.ModelProto:
    return model(MERGED, ones=torch.ones(4), zeros=torch.zeros(4))


@pytest.mark.parametrize(("untie", "count"), [("auto", 5), ("all", 5), ("none", 2)])
def test_equal_tensors_that_an_exporter_merged_learn_apart(untie: str, count: int) -> None:
    module = pcgraph.from_onnx(merged(), untie=untie)
    assert len(list(module.parameters())) == count
    assert len({p.data_ptr() for p in module.parameters()}) == count
    torch.testing.assert_close(module(X), F.layer_norm(F.layer_norm(X, (4,)), (4,)))


def test_a_tensor_that_is_no_constant_stays_tied_unless_all_are_untied() -> None:
    text = "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, w) b = MatMul(a, w) y = Add(b, x) }"
    proto = model(text, w=torch.randn(4, 4))
    assert len(list(pcgraph.from_onnx(proto).parameters())) == 1
    assert len(list(pcgraph.from_onnx(proto, untie="all").parameters())) == 2


def test_origins_say_where_parameters_come_from() -> None:
    proto, net = perceptron()
    module = pcgraph.from_onnx(proto)
    origin = module.provenance.origins["block.0.weight"]
    assert origin.initializer == "onnx::MatMul_7" and origin.use is None
    initializer = torch.zeros(4, 5)
    from pcgraph.onnx.steps import write_back

    write_back(origin.steps, module.get_parameter("block.0.weight"), initializer)
    assert torch.equal(initializer, net[0].weight.T)
    copies = pcgraph.from_onnx(merged()).provenance.origins
    assert sorted((o.initializer, o.use is None) for o in copies.values()) == [
        ("ones", False),
        ("ones", True),
        ("zeros", False),
        ("zeros", False),
        ("zeros", True),
    ]


# -- the result as a module ----------------------------------------------------------------------------------
def test_copies_pickles_and_state_dicts() -> None:
    proto, _ = perceptron()
    module = pcgraph.from_onnx(proto)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(X), module(X)) and twin.code == module.code
        assert twin.provenance.origins == module.provenance.origins
        assert next(twin.parameters()).data_ptr() != next(module.parameters()).data_ptr()
        twin.load_state_dict({name: torch.zeros_like(t) for name, t in module.state_dict().items()})
        assert not twin(X).any() and module(X).any()


def test_half_precision_weights() -> None:
    text = "g (float16[N, 4] x) => (float16[N, 3] y) { y = MatMul(x, w) }"
    weight = torch.randn(4, 3).half()
    module = pcgraph.from_onnx(model(text, w=weight))
    assert torch.equal(module(X.half()), F.linear(X.half(), weight.T.contiguous()))
    bfloat = model("g (bfloat16[N, 4] x) => (bfloat16[N, 3] y) { y = MatMul(x, w) }")
    raw = weight.bfloat16().view(torch.int16).numpy().tobytes()
    bfloat.graph.initializer.append(onnx.TensorProto(name="w", data_type=16, dims=[4, 3], raw_data=raw))
    assert torch.equal(
        pcgraph.from_onnx(bfloat)(X.bfloat16()), F.linear(X.bfloat16(), weight.bfloat16().T.contiguous())
    )


def test_unsorted_graphs_and_external_data(tmp_path: object) -> None:
    proto, net = perceptron()
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    torch.testing.assert_close(pcgraph.from_onnx(proto)(X), net(X))
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert (tmp_path / "net.data").exists()
    torch.testing.assert_close(pcgraph.from_onnx(tmp_path / "net.onnx")(X), net(X))
    assert pcgraph.from_onnx(str(tmp_path / "net.onnx")).provenance.file == str(tmp_path / "net.onnx")


def test_local_functions_are_inlined() -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) { a = own.twice(x) y = own.twice(a) }
    <domain: "own", opset_import: ["" : 17]>
    twice (v) => (w) { w = Add(v, v) }"""
    module = pcgraph.from_onnx(model(text, domains=', "own" : 1'))
    assert torch.equal(module(X), 4 * X)


def test_a_gemm_with_a_beta_of_zero_reads_no_c() -> None:
    proto = model("g (float[N, 4] x) => (float[N, 2] y) { y = Gemm<beta = 0.0>(x, w, c) }", w=(w := torch.randn(4, 2)),
                  c=torch.full((2,), float("nan")))  # fmt: skip
    assert torch.equal(pcgraph.from_onnx(proto)(X), X @ w)


def test_control_flow_depends_on_the_call() -> None:
    text = """g (float[N, 4] x, bool flag) => (float[N, 4] y) {
        y = If(flag) <
            then_branch = t () => (float[N, 4] a) { a = Mul(x, "w") },
            else_branch = e () => (float[N, 4] b) { b = Neg(x) }
        >
    }"""
    module = pcgraph.from_onnx(model(text, w=torch.full((4,), 3.0)))
    w = next(module.parameters())
    module(X, torch.tensor(True)).sum().backward()
    assert torch.equal(w.grad, X.sum(0))
    assert torch.equal(module(X, torch.tensor(False)), -X)
    assert torch.equal(pickle.loads(pickle.dumps(module))(X, torch.tensor(True)), 3 * X)


def test_loops_unroll_at_run_time() -> None:
    text = """g (float[N, 4] x, int64 count) => (float[N, 4] y, float[K, N, 4] rows) {
        y, rows = Loop(count, , x) <
            body = b (int64 i, bool c, float[N, 4] v) => (bool d, float[N, 4] w, float[N, 4] r) {
            d = Identity(c)
            w = Mul(v, "factor")
            r = Neg(w)
        }>
    }"""
    module = pcgraph.from_onnx(model(text, factor=torch.full((4,), 2.0)))
    y, rows = module(X, torch.tensor(3))
    assert torch.equal(y, 8 * X) and rows.shape == (3, 2, 4) and torch.equal(rows[0], -2 * X)
    assert pcgraph.verify(module, (X, torch.tensor(3))).exact


def test_promised_sizes_are_checked_at_every_call() -> None:
    text = """g (float[N, 4] x) => (float[K] y) {
        s = Shape(x)
        f = Cast<to = 1>(s)
        m = ReduceMax(x)
        y = Mul(f, m)
    }"""
    module = pcgraph.from_onnx(model(text), input_shapes={"x": (2, None)})
    assert torch.equal(module(X), torch.tensor([[2.0, 4.0]]))
    with pytest.raises(ValueError, match="input_shapes"):
        module(torch.ones(3, 4))


def test_random_numbers_are_drawn_at_every_call() -> None:
    text = """g (float[N] x) => (float[N] y) {
        p = Constant<value_floats = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]>()
        drawn = Bernoulli(p)
        y = Mul(x, drawn)
    }"""
    module = pcgraph.from_onnx(model(text), trainable="none")
    assert len({tuple(module(torch.ones(8)).tolist()) for _ in range(20)}) > 1


# -- quantised files -----------------------------------------------------------------------------------------
QUANTISED = """g (float[N, 4] x) => (float[N, 3] y) {
    w = DequantizeLinear(q, scale)
    y = MatMul(x, w)
}"""


def test_quantised_files_are_refused_or_dequantised() -> None:
    q = torch.randint(-5, 5, (4, 3), dtype=torch.int8)
    proto = model(QUANTISED, q=q, scale=torch.tensor(0.5))
    with pytest.raises(OnnxImportError, match="quantised") as caught:
        pcgraph.from_onnx(proto)
    assert caught.value.operator == "DequantizeLinear" and "dequantize" in str(caught.value)
    module = pcgraph.from_onnx(proto, quantized="dequantize")
    torch.testing.assert_close(module(X), X @ (q.float() * 0.5))
    assert len(list(module.parameters())) == 1


def test_activations_are_no_longer_rounded() -> None:
    text = """g (float[N, 4] x) => (float[N, 4] y) {
        q = QuantizeLinear(x, scale)
        y = DequantizeLinear(q, scale)
    }"""
    assert torch.equal(pcgraph.from_onnx(model(text, scale=torch.tensor(0.5)), quantized="dequantize")(X), X)


# -- without the extra ---------------------------------------------------------------------------------------
def test_without_the_extra_the_message_is_the_install_line() -> None:
    script = """
import sys
import pcgraph
assert "onnx" not in sys.modules and "onnx_ir" not in sys.modules  # import pcgraph needs neither
sys.modules["onnx"] = sys.modules["onnx_ir"] = None
try:
    pcgraph.from_onnx("net.onnx")
except pcgraph.OnnxImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'pcgraph[onnx]'" in done.stdout
