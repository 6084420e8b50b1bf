"""Files that mean harm, or are broken: every one ends in an OnnxImportError that says what is wrong."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

import pcgraph  # noqa: E402
from pcgraph import OnnxImportError  # noqa: E402
from pcgraph.onnx import Limits  # noqa: E402
from tests.onnx.build import model  # noqa: E402

HUGE = torch.tensor([1 << 20, 1 << 20])


def cycle() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { a = Add(x, b) b = Relu(a) y = Neg(b) }")


def undefined() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { y = Add(x, nowhere) }")


def twice_assigned() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { y = Neg(x) y = Abs(x) }")


def unknown_operator() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { y = Teleport(x) }")


def unknown_domain() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { y = own.Teleport(x) }", domains=', "own" : 1')


def no_outputs() -> onnx.ModelProto:
    proto = model("g (float[N] x) => (float[N] y) { y = Neg(x) }")
    del proto.graph.output[:]
    return proto


def from_the_future() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { y = Neg(x) }", opset=9999)


def short_data() -> onnx.ModelProto:
    proto = model("g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }")
    proto.graph.initializer.append(onnx.TensorProto(name="w", data_type=1, dims=[4, 3], raw_data=bytes(8)))
    return proto


def no_data() -> onnx.ModelProto:
    """Loaders make zeros of it: 4 GB."""
    proto = model("g (float[N, 4] x) => (float[N, 4] y) { y = Add(x, w) }")
    proto.graph.initializer.append(onnx.TensorProto(name="w", data_type=1, dims=[1 << 16, 1 << 14]))
    return proto


def no_data_of_a_constant() -> onnx.ModelProto:
    proto = model("g (float[N, 4] x) => (float[N, 4] y) { w = Constant<value = float {1}>() y = Add(x, w) }")
    proto.graph.node[0].attribute[0].t.CopyFrom(no_data().graph.initializer[0])
    return proto


def negative_size() -> onnx.ModelProto:
    proto = model("g (float[N, 4] x) => (float[N, 4] y) { y = Add(x, w) }")
    proto.graph.initializer.append(onnx.TensorProto(name="w", data_type=1, dims=[-5], float_data=[1.0, 2.0]))
    return proto


def huge_expand() -> onnx.ModelProto:
    return model(
        "g (int64[N] x) => (int64[A, B] y) { a = Expand(one, shape) y = Add(a, x) }", one=torch.tensor([1]), shape=HUGE
    )


def huge_fill() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[A, B] y) { a = ConstantOfShape(shape) y = Add(a, x) }", shape=HUGE)


def huge_range() -> onnx.ModelProto:
    text = """g (int64[N] x) => (int64[N] y) {
        a = Constant<value = int64 {0}>()
        b = Constant<value = int64 {1099511627776}>()
        c = Constant<value = int64 {1}>()
        r = Range(a, b, c)
        y = Add(x, r)
    }"""
    return model(text)


def huge_outer_product() -> onnx.ModelProto:
    text = "g (int64[N] x) => (int64[A, B] y) { a = Add(rows, columns) y = Add(a, x) }"
    return model(text, rows=torch.zeros(100_000, 1).long(), columns=torch.zeros(1, 100_000).long())


def many_small_constants() -> onnx.ModelProto:
    lines = "\n".join(f"a{k} = Expand(one, shape)\nb{k + 1} = Add(b{k}, a{k})" for k in range(20))
    text = f"g (int64[N] x) => (int64[A, B] y) {{ b0 = Neg(x)\n{lines}\ny = Neg(b20) }}"
    return model(text, one=torch.tensor([1]), shape=torch.tensor([2000, 1000]))


def function_bomb() -> onnx.ModelProto:
    head = '<domain: "own", opset_import: ["" : 17, "own" : 1]>'
    calls = "\n".join(f"v{i + 1} = own.f{{next}}(v{i})" for i in range(30))
    bodies = [f"{head} f{k} (v0) => (v30) {{ {calls.format(next=k + 1)} }}" for k in range(6)]
    bodies.append(f"{head} f6 (v) => (w) {{ w = Neg(v) }}")
    return model("g (float[N] x) => (float[N] y) { y = own.f0(x) }\n" + "\n".join(bodies), domains=', "own" : 1')


def function_that_calls_itself() -> onnx.ModelProto:
    text = """g (float[N] x) => (float[N] y) { y = own.f(x) }
    <domain: "own", opset_import: ["" : 17, "own" : 1]> f (v) => (w) { w = own.f(v) }"""
    return model(text, domains=', "own" : 1')


def constant_loop() -> onnx.ModelProto:
    text = """g (int64[N] x) => (int64[N] y) {
        count = Constant<value = int64 {1099511627776}>()
        start = Constant<value_ints = [1]>()
        end = Loop(count, , start) <body = b (int64 i, bool c, int64[K] v) => (bool d, int64[K] w) {
            d = Identity(c)
            w = Neg(v)
        }>
        y = Add(x, end)
    }"""
    return model(text)


def deep_nesting() -> onnx.ModelProto:
    inner = "z0 = Neg(x)"
    for k in range(10):
        inner = f"""z{k + 1} = If(flag) <
            then_branch = t{k} () => (float[N] p{k}) {{ {inner} p{k} = Identity(z{k}) }},
            else_branch = e{k} () => (float[N] q{k}) {{ q{k} = Identity(x) }}
        >"""
    return model(f"g (float[N] x, bool flag) => (float[N] y) {{ {inner} y = Identity(z10) }}")


def strings() -> onnx.ModelProto:
    return model("g (string[N] x) => (string[N] y) { y = Identity(x) }")


HOSTILE: dict[Callable[[], onnx.ModelProto], str] = {
    cycle: "cycle",
    undefined: "nowhere",
    twice_assigned: "not valid|SSA|cannot be read",
    unknown_operator: "Teleport",
    unknown_domain: "own::Teleport",
    no_outputs: "no outputs",
    from_the_future: "newer than",
    short_data: "'w' has not the data",
    no_data: "'w' has not the data",
    no_data_of_a_constant: "'w' has not the data",
    negative_size: "'w' has a negative size",
    huge_expand: "constant result has about",
    huge_fill: "constant result has about",
    huge_range: "constant result has about",
    huge_outer_product: "constant result has about",
    many_small_constants: "with the others",
    function_bomb: "nodes",
    function_that_calls_itself: "calls itself",
    constant_loop: "more than 1000 times",
    deep_nesting: "nested",
    strings: "STRING|String|string",
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_refused(make: Callable[[], onnx.ModelProto]) -> None:
    start = time.monotonic()
    with pytest.raises(OnnxImportError) as caught:
        pcgraph.from_onnx(make(), limits=Limits(nesting=8, trips=1000))
    assert re.search(HOSTILE[make], str(caught.value)), str(caught.value)
    assert time.monotonic() - start < 5


def test_limits_can_be_raised() -> None:
    made = pcgraph.from_onnx(many_small_constants(), limits=Limits(folded_bytes=2**31))
    assert made(torch.ones(1000).long()).shape == (2000, 1000)


def test_time_is_limited() -> None:
    with pytest.raises(OnnxImportError, match="takes more than"):
        pcgraph.from_onnx(undefined_free(), limits=Limits(seconds=-1.0))


def undefined_free() -> onnx.ModelProto:
    return model("g (float[N] x) => (float[N] y) { y = Neg(x) }")


def test_a_loop_that_depends_on_the_call_stops_at_the_limit() -> None:
    text = """g (float[N] x, int64 count) => (float[N] y) {
        y = Loop(count, , x) <body = b (int64 i, bool c, float[N] v) => (bool d, float[N] w) {
            d = Identity(c)
            w = Neg(v)
        }>
    }"""
    module = pcgraph.from_onnx(model(text), limits=Limits(trips=10))
    assert torch.equal(module(torch.ones(2), torch.tensor(10)), torch.ones(2))
    with pytest.raises(RuntimeError, match="more than 10 times"):
        module(torch.ones(2), torch.tensor(11))


# -- names ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ['a"); import os; os.abort() #', "__class__", "forward", "lambda", "a\nb", "ünïcode", "x" * 10_000, "self"]
)
def test_names_never_become_code(name: str) -> None:
    proto = model("g (float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, w) y = Mul(a, v) }")
    for tensor in (("w", 4, 4), ("v", 4)):
        array = torch.eye(4).numpy() if len(tensor) == 3 else torch.ones(4).numpy()
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, tensor[0]))
    renamed = {"w": f"{name}.weight", "v": name, "x": f"{name} x", "y": f"{name} y", "a": f"{name} a"}
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed[value.name]
    for node in graph.node:
        node.name = name
        node.input[:] = [renamed[i] for i in node.input]
        node.output[:] = [renamed[o] for o in node.output]
    module = pcgraph.from_onnx(proto)
    x = torch.rand(2, 4)
    assert torch.equal(module(x), x)
    assert re.fullmatch(r"[\w\s.,:;=()\[\]\"]*", module.code, flags=re.ASCII), module.code
    assert all(re.fullmatch(r"[\w.]{1,200}", key) for key in module.state_dict())


@pytest.mark.parametrize("name", ["torch", "self", "inf", "pcgraph_onnx_operators_elementwise_hard_sigmoid"])
def test_names_stand_before_nothing_that_the_code_speaks_of(name: str) -> None:
    text = "g (float[N, 4] NAME) => (float[N, 4] y) { a = HardSigmoid(NAME) b = Clip(a, , w) y = Mul(b, b) }"
    module = pcgraph.from_onnx(model(text.replace("NAME", name), w=torch.tensor(float("inf"))))
    assert torch.equal(module(torch.zeros(2, 4)), torch.full((2, 4), 0.25))


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize(
    "name", ["y = print('run') or 1", "x):\n pass\nprint('run')\ndef f(z", "lambda", "x", "__class__"]
)
def test_names_of_attributes_never_become_code(name: str, domain: str, capsys: pytest.CaptureFixture[str]) -> None:
    """onnx's checker knows the attributes of its own operators only, and lets all pass that begin with ``__``."""
    node = onnx.helper.make_node("Gelu", ["x"], ["y"], domain=domain)
    node.attribute.append(onnx.helper.make_attribute(name, 1))
    proto = model("g (float[N] x) => (float[N] y) { y = Neg(x) }", opset=20, domains=', "com.microsoft" : 1')
    proto.graph.node[0].CopyFrom(node)
    if name == "__class__":
        assert name not in pcgraph.from_onnx(proto).code
    else:
        with pytest.raises(OnnxImportError, match="attribute"):
            pcgraph.from_onnx(proto)
    assert capsys.readouterr().out == ""


def test_operands_of_other_domains_are_counted() -> None:
    proto = model("g (float[N] x) => (float[N] y) { y = com.microsoft.FusedConv(x) }", domains=', "com.microsoft" : 1')
    with pytest.raises(OnnxImportError, match="missing a required argument: 'w'"):
        pcgraph.from_onnx(proto)


# -- external data -------------------------------------------------------------------------------------------
def saved(folder: Path, **entries: str) -> Path:
    """A file whose weight lies in another one, with these entries changed."""
    folder.mkdir()
    proto = model("g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=torch.ones(4, 3))
    path = folder / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="net.data", size_threshold=0)
    changed = onnx.load(path, load_external_data=False)
    for entry in changed.graph.initializer[0].external_data:
        entry.value = entries.pop(entry.key, entry.value)
    for key, value in entries.items():
        changed.graph.initializer[0].external_data.add(key=key, value=value)
    path.write_bytes(changed.SerializeToString())
    return path


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "../secret"},
        {"location": "sub/../../secret"},
        {"location": "/etc/hostname"},
        {"location": "missing"},
        {"location": "link"},
        {"location": "."},
        {"offset": "40"},
        {"offset": "-8"},
        {"length": "4000"},
        {"length": "12"},
        {"length": "many"},
    ],
    ids=str,
)
def test_external_data_stay_in_the_folder(tmp_path: Path, entries: dict[str, str]) -> None:
    (tmp_path / "secret").write_bytes(bytes(48))
    path = saved(tmp_path / "folder", **entries)
    os.symlink(tmp_path / "secret", path.parent / "link")
    with pytest.raises(OnnxImportError, match="external data"):
        pcgraph.from_onnx(path)


def test_external_data_are_limited_and_need_a_folder(tmp_path: Path) -> None:
    path = saved(tmp_path / "folder")
    assert pcgraph.from_onnx(path)(torch.ones(1, 4)).tolist() == [[4.0, 4.0, 4.0]]
    with pytest.raises(OnnxImportError, match="external data are more than"):
        pcgraph.from_onnx(path, limits=Limits(external_bytes=8))
    with pytest.raises(OnnxImportError, match="no folder"):
        pcgraph.from_onnx(path.read_bytes())


@pytest.mark.parametrize("source", [b"", b"not a model", b"\x08\x07" * 50, 3.5, "nowhere.onnx"], ids=repr)
def test_what_is_no_model(source: object) -> None:
    with pytest.raises(OnnxImportError):
        pcgraph.from_onnx(source)


def test_errors_name_node_operator_and_file(tmp_path: Path) -> None:
    proto = model("g (float[N] x) => (float[N] y) { y = com.microsoft.Attention(x) }", domains=', "com.microsoft" : 1')
    proto.graph.node[0].name = "the one"
    onnx.save(proto, tmp_path / "net.onnx")
    with pytest.raises(OnnxImportError) as caught:
        pcgraph.from_onnx(tmp_path / "net.onnx")
    error = caught.value
    assert (error.node, error.operator) == ("the one", "com.microsoft::Attention")
    assert error.file == str(tmp_path / "net.onnx") and "net.onnx" in str(error)


def test_files_changed_at_random() -> None:
    from tests.onnx.fuzz import run

    found, finds = run(seconds=3, seed=1, most=150)
    assert not finds, list(finds)
    assert found["refused"] and found["imported"]
