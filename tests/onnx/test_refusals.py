"""What is not imported is refused by its name, with the way out."""

from __future__ import annotations

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

import pcgraph  # noqa: E402
from pcgraph import OnnxImportError  # noqa: E402
from tests.onnx.build import model  # noqa: E402

SCAN = """g (float[1, 2] i, float[1, 3, 2] x) => (float[1, 2] y, float[1, 3, 2] z) {
    y, z = Scan<num_scan_inputs = 1, body = b (float[2] s, float[2] n) => (float[2] t, float[2] o) {
        t = Add(s, n)
        o = Identity(t)
    }>("", i, x)
}"""
SPLIT = "g (float[N] x) => (float[N] y) { s = SplitToSequence(x) y = ConcatFromSequence<axis = 0>(s) }"
MICROSOFT = "g (float[N, 4] x) => (float[N, 4] y) { y = com.microsoft.%s(x, x) }"
CASES = {
    "sequence": (SPLIT, 17, "SplitToSequence", "sequences are not supported", "Split and Concat"),
    "sequence input": ("g (seq(float[N]) x) => (float[N] y) { i = Constant<value = int64 {0}>() y = SequenceAt(x, i) }",
                       17, "input 'x'", "sequences are not supported", "Split and Concat"),
    "optional input": ("g (optional(float[N]) x) => (float[N] y) { y = OptionalGetElement(x) }",
                       17, "input 'x'", "optional values are not supported", "inputs are all given"),
    "string input": ("g (string[N] x) => (string[N] y) { y = Neg(x) }", 17, "input 'x'", "strings", "feed numbers"),
    "cast to strings": ("g (float[N] x) => (string[N] y) { y = Cast<to = 8>(x) }", 17, "Cast", "STRING", ""),
    "scan": (SCAN, 8, "Scan", "Scan of opset 8 is not supported", "opset 9 or newer"),
    "integers": ("g (uint8[N, 4] x, uint8[4, 3] w) => (int32[N, 3] y) { y = MatMulInteger(x, w) }",
                 17, "MatMulInteger", "computes with whole numbers", "quantized='dequantize'"),
    "dynamic": ("g (float[N, 4] x) => (uint8[N, 4] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear(x) }",
                17, "", "the file is quantised", "quantized='dequantize'"),
    "both": ("""g (float[N, 4] x, uint8[4, 3] w) => (int32[N, 3] y) {
                 q, s, z = DynamicQuantizeLinear(x) y = MatMulInteger(q, w, z) }""",
             17, "MatMulInteger", "computes with whole numbers", "take the file in floats"),
    "linear": (MICROSOFT % "QLinearAdd", 17, "com.microsoft::QLinearAdd", "computes with whole numbers", "QDQ"),
    "microsoft": (MICROSOFT % "Attention", 17, "com.microsoft::Attention", "com.microsoft is not", "optimiser"),
    "classical": ("g (float[N, 4] x) => (float[N, 4] y) { y = ai.onnx.ml.Normalizer(x) }",
                  17, "ai.onnx.ml::Normalizer", "ai.onnx.ml are not supported", "without the pipeline"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "opset", "name", "what", "hint"), CASES.values(), ids=CASES)
def test_refused(text: str, opset: int, name: str, what: str, hint: str) -> None:
    proto = model(text, opset=opset, domains=', "com.microsoft" : 1, "ai.onnx.ml" : 3')
    with pytest.raises(OnnxImportError) as caught:
        pcgraph.from_onnx(proto)
    message = str(caught.value)
    assert name in message and what in message and hint in message, message
