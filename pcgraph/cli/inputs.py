"""Shape texts (``8x3x32x32``, ``8x64:int64<256``) to seeded random tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import PCGraphError

if TYPE_CHECKING:
    import torch

_FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
_PATTERN = re.compile(r"(?P<shape>scalar|[0-9]+(?:x[0-9]+)*)(?::(?P<dtype>[a-z]+[0-9]*))?(?:<(?P<bound>[0-9]+))?")
_EXAMPLES = "write 8x3x32x32, 8x3x32x32:float64, or '8x64:int64<256' (in quotes) for integers below 256"


class InputSpec(NamedTuple):
    """One argument of forward: its shape, torch dtype and, for integers, the bound that values stay below."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    bound: int | None = None

    def __str__(self) -> str:
        bound = "" if self.bound is None else f"<{self.bound}"
        return f"{'x'.join(map(str, self.shape)) or 'scalar'}:{self.dtype}{bound}"


def parse(text: str) -> InputSpec:
    """Read one shape text.

    >>> parse("8x3x32x32")
    InputSpec(shape=(8, 3, 32, 32), dtype='float32', bound=None)
    >>> print(parse("8x64:int64<256"))
    8x64:int64<256
    >>> parse("scalar").shape
    ()

    Raises:
        PCGraphError: the text is no shape, the dtype is unknown, or a bound is missing or out of place.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise PCGraphError(f"--input {text!r} is not a shape", hint=_EXAMPLES)
    shape = () if match["shape"] == "scalar" else tuple(int(size) for size in match["shape"].split("x"))
    if 0 in shape:
        raise PCGraphError(f"--input {text!r} has a size of 0", hint=_EXAMPLES)
    dtype = match["dtype"] or ("int64" if match["bound"] else "float32")
    bound = None if match["bound"] is None else int(match["bound"])
    if dtype in _INTEGERS:
        if bound is None:
            raise PCGraphError(f"--input {text!r}: integers need a bound", hint=_EXAMPLES)
        bits = int(dtype.lstrip("uint")) - (not dtype.startswith("u"))
        highest = min(2**bits, 2**63 - 1)  # a bound is itself an int64
        if not 1 <= bound <= highest:
            raise PCGraphError(f"--input {text!r}: the bound must lie between 1 and {highest} for {dtype}")
    elif dtype in _FLOATS or dtype == "bool":
        if bound is not None:
            raise PCGraphError(f"--input {text!r}: only integers have a bound", hint=_EXAMPLES)
    else:
        raise PCGraphError(
            f"--input {text!r}: unknown dtype {dtype!r}", hint="one of " + ", ".join((*_FLOATS, *_INTEGERS, "bool"))
        )
    return InputSpec(shape, dtype, bound)


def random_inputs(specs: Sequence[InputSpec], seed: int) -> tuple[torch.Tensor, ...]:
    """Fill each spec with random numbers: normal, uniform below the bound, or fair coins for bool."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for spec in specs:
        dtype: torch.dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point or dtype.is_complex:
            tensors.append(torch.randn(spec.shape, generator=generator, dtype=dtype))
        else:
            high = 2 if spec.bound is None else spec.bound
            # Drawn as int64 and cast: randint's bound itself need not fit the dtype.
            tensors.append(torch.randint(high, spec.shape, generator=generator).to(dtype))
    return tuple(tensors)
