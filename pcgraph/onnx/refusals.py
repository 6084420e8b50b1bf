"""Operators that are not imported: what is to be said of them, and the way out."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """Why an operator is refused, and what to do about it."""

    what: str
    hint: str


SEQUENCES = Refusal(
    "sequences are not supported",
    "export with tensors in their place: Split and Concat, or torch.stack and indexing, for SplitToSequence, "
    "ConcatFromSequence and SequenceAt",
)
OPTIONALS = Refusal("optional values are not supported", "export a model whose inputs are all given")
STRINGS = Refusal("strings are not supported", "leave the text processing out of the export, and feed numbers")
INTEGERS = Refusal(
    "the file is quantised, and computes with whole numbers",
    "take the file in floats; or one quantised in the QDQ format, with from_onnx(..., quantized='dequantize')",
)
CLASSICAL = Refusal("operators of ai.onnx.ml are not supported", "export the network without the pipeline around it")
FUSED = Refusal(
    "this operator of com.microsoft is not supported",
    "it was put there by onnxruntime's optimiser: take the file from before, or optimise at a lower level",
)
SCAN_8 = Refusal(
    "Scan of opset 8 is not supported", "export at opset 9 or newer, since when Scan has no batch of its own"
)

_INTEGER = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")
_STRING = ("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer")
_OPTIONAL = ("Optional", "OptionalHasElement")


def is_integer(domain: str, name: str) -> bool:
    """Whether an operator calculates with quantised numbers, which no option imports."""
    arithmetic = name in _INTEGER and name != "DynamicQuantizeLinear"  # which is made of others, and can be undone
    return (domain in ("", "ai.onnx") and arithmetic) or name.startswith("QLinear")


def refusal(domain: str, name: str, version: int) -> Refusal:
    """What is said of an operator that the table does not have.

    Args:
        domain: its domain, "" for ``ai.onnx``.
        name: of the operator.
        version: of the domain's opset.
    """
    if domain == "" and "Sequence" in name:
        return SEQUENCES
    if domain == "" and name in _OPTIONAL:
        return OPTIONALS
    if domain == "" and name in _STRING:
        return STRINGS
    if (domain == "" and name in _INTEGER) or name.startswith("QLinear"):
        return INTEGERS
    if domain == "ai.onnx.ml":
        return CLASSICAL
    if domain == "com.microsoft":
        return FUSED
    return Refusal(
        f"this operator is not supported (opset {version})",
        "pcgraph imports the operators listed in docs/onnx.md; export without this one",
    )
