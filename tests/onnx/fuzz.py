"""Broken files: valid ones with bytes, fields and names changed at random. Each must import or raise OnnxImportError.

    python -m tests.onnx.fuzz --seconds 3600 --keep finds

Exit code 1 if a file ended in anything else, took more than 5 seconds, or made the process grow by more than 1 GB.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import torch

import pcgraph
from pcgraph import OnnxImportError
from tests.onnx.cases import KINDS, file_cases
from tests.onnx.test_import import merged, perceptron
from tests.onnx.test_roles import roles

SECONDS, GROWTH = 5.0, 2**30
NUMBERS = (-(2**63), -(2**31), -129, -2, -1, 0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**40, 2**63 - 1)


def seeds() -> list[bytes]:
    """Valid models of many kinds."""
    protos = [perceptron()[0], merged(), roles()]
    protos += [case.model for kind in KINDS[1:] for case in file_cases(kind)]
    return [proto.SerializeToString() for proto in protos]


def flipped_bytes(data: bytes, draw: random.Random) -> bytes:
    """Some bytes replaced, taken out or put in."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(changed))
        kind = draw.randrange(3)
        if kind == 0:
            changed[at] = draw.randrange(256)
        elif kind == 1:
            del changed[at : at + draw.choice((1, 2, 8))]
        else:
            changed[at:at] = draw.randbytes(draw.choice((1, 2, 8)))
    return bytes(changed)


def changed_fields(data: bytes, draw: random.Random) -> bytes:
    """Fields of the model replaced: names, numbers, types, sizes, whole nodes."""
    model = onnx.load_model_from_string(data)
    for _ in range(draw.choice((1, 1, 2, 3))):
        if model.graph.node:
            draw.choice(CHANGES)(model.graph, draw)
    if draw.random() < 0.05:
        model.opset_import[0].version = draw.choice(NUMBERS)
    return model.SerializeToString()


def _rename(graph: onnx.GraphProto, draw: random.Random) -> None:
    node = draw.choice(graph.node)
    names = [n for other in graph.node for n in (*other.input, *other.output)] + ["", "self", "x\n", "a" * 300]
    field = node.input if node.input and draw.random() < 0.6 else node.output
    if field:
        field[draw.randrange(len(field))] = draw.choice(names)


def _retype(graph: onnx.GraphProto, draw: random.Random) -> None:
    node = draw.choice(graph.node)
    names = [schema.name for schema in onnx.defs.get_all_schemas()]
    node.op_type = draw.choice(names)


def _renumber(graph: onnx.GraphProto, draw: random.Random) -> None:
    attributes = [a for node in graph.node for a in node.attribute]
    if not attributes:
        return
    attribute = draw.choice(attributes)
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(NUMBERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw.choice(NUMBERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = draw.choice((float("nan"), float("inf"), -1.0, 0.0, 1e30))
    else:
        attribute.type = draw.randrange(15)


def _respell(graph: onnx.GraphProto, draw: random.Random) -> None:
    """Another name of an attribute, of a domain that nobody checks."""
    node = draw.choice(graph.node)
    if draw.random() < 0.5:
        node.domain = "com.microsoft"
        node.op_type = draw.choice(("Gelu", "QuickGelu", "FusedMatMul", "FusedConv", "SkipLayerNormalization"))
    if node.attribute:
        draw.choice(node.attribute).name = draw.choice(("", "x", "lambda", "__x", "a=1)\nraise SystemExit\ndef f(y"))


def _resize(graph: onnx.GraphProto, draw: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = draw.choice(graph.initializer)
    kind = draw.randrange(4)
    if kind == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(NUMBERS)
    elif kind == 1:
        tensor.data_type = draw.randrange(26)
    elif kind == 2:
        tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
    elif tensor.data_type == onnx.TensorProto.INT64 and tensor.raw_data:
        number = draw.choice(NUMBERS).to_bytes(8, "little", signed=True)
        tensor.raw_data = number + tensor.raw_data[8:]


def _drop(graph: onnx.GraphProto, draw: random.Random) -> None:
    field = draw.choice((graph.node, graph.initializer, graph.input, graph.output))
    if field:
        del field[draw.randrange(len(field))]


def _shuffle(graph: onnx.GraphProto, draw: random.Random) -> None:
    nodes = list(graph.node)
    draw.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


CHANGES: tuple[Callable[[onnx.GraphProto, random.Random], None], ...] = (
    _rename,
    _retype,
    _renumber,
    _respell,
    _resize,
    _drop,
    _shuffle,
)


def attempt(data: bytes) -> str:
    """What became of a file: "imported", "refused", or what went wrong."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pcgraph.from_onnx(data)
            outcome = "imported"
        except OnnxImportError:
            outcome = "refused"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if time.monotonic() - start > SECONDS:
        return f"took {time.monotonic() - start:.1f} s"
    return f"grew by {grown} bytes" if grown > GROWTH else outcome


def run(seconds: float, seed: int, most: int | None = None) -> tuple[Counter[str], dict[str, bytes]]:
    """Change and import until time is up; counts of outcomes, and one file for each that is not allowed."""
    draw, pool = random.Random(seed), seeds()
    found: Counter[str] = Counter()
    finds: dict[str, bytes] = {}
    start = time.monotonic()
    while time.monotonic() - start < seconds and (most is None or found.total() < most):
        data = draw.choice((flipped_bytes, changed_fields))(draw.choice(pool), draw)
        outcome = attempt(data)
        allowed = outcome in ("imported", "refused")
        found[outcome if allowed else "wrong"] += 1
        if not allowed:
            finds.setdefault(outcome.splitlines()[0][:80], data)
    return found, finds


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.onnx.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the files that went wrong here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found, finds = run(options.seconds, options.seed)
    print(dict(found))
    for k, (what, data) in enumerate(finds.items()):
        print(what)
        if options.keep is not None:
            options.keep.mkdir(exist_ok=True)
            (options.keep / f"{k}.onnx").write_bytes(data)
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
