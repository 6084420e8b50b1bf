"""The table of operators against onnx's schemas: every operand and attribute of every opset version is accepted."""

from __future__ import annotations

import inspect

import pytest
import torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx_ir")

from pcgraph.onnx.operators import Operator, find, rows  # noqa: E402

OLDEST = 7


def versions() -> list[tuple[Operator, onnx.defs.OpSchema]]:
    """Every schema of ai.onnx that the importer meets, with the row that computes it."""
    newest = onnx.defs.onnx_opset_version()
    found = {}
    for name in sorted({row.name for row in rows() if row.domain == ""}):
        for version in range(OLDEST, newest + 1):
            row = find("", name, version)
            if row is not None and onnx.defs.has(name):
                try:
                    schema = onnx.defs.get_schema(name, version, "")
                except onnx.defs.SchemaError:
                    continue
                found[name, schema.since_version, row.since] = (row, schema)
    return list(found.values())


def ids(pair: object) -> str:
    return f"{pair.name}-{pair.since}" if isinstance(pair, Operator) else str(getattr(pair, "since_version", ""))


@pytest.mark.parametrize(("row", "schema"), versions(), ids=ids)
def test_signature(row: Operator, schema: onnx.defs.OpSchema) -> None:
    if schema.deprecated:
        return
    try:
        signature = inspect.signature(row.function)
    except (TypeError, ValueError):  # a function of torch itself
        assert not schema.attributes or row.function is torch.matmul, f"{row.name} has {list(schema.attributes)}"
        return
    operands = [i.name for i in schema.inputs]
    variadic = any(i.option == onnx.defs.OpSchema.FormalParameterOption.Variadic for i in schema.inputs)
    named = {name: None for name in schema.attributes}
    if row.function.__module__.startswith("torch"):
        assert not named or row.name in ("Gelu",), f"{row.name}: {list(named)} to {row.function}"
        return
    if row.counted:
        named["outputs"] = None
    positional = [None] * (len(operands) + variadic)
    signature.bind(*positional, **named)
    places = list(signature.parameters.values())
    if not variadic:
        assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in places[: len(operands)])


def test_operands_that_are_read_in_python_exist() -> None:
    for row in rows():
        for operand in row.literals | row.scalars | row.settings | row.fixed:
            parameters = list(inspect.signature(row.function).parameters.values())
            assert operand < len(parameters) or parameters[0].kind is inspect.Parameter.VAR_POSITIONAL, row
