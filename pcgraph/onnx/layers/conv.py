"""nn.Conv1d to nn.ConvTranspose3d."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from ..values import Leaf
from .site import Site, on_meta

_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSE: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def conv(site: Site) -> fx.Node | None:
    """A convolution with even pads."""
    found = _weights(site)
    if found is None:
        return None
    weight, bias, n = found
    group = site.attributes.get("group", 1)
    out, each = weight.shape[:2]
    return _made(site, _CONV[n], weight, bias, each * group, out, {})


def conv_transpose(site: Site) -> fx.Node | None:
    """A transposed convolution with even pads and no wanted output shape."""
    found = _weights(site)
    if found is None or site.attributes.get("output_shape"):
        return None
    weight, bias, n = found
    extra = site.attributes.get("output_padding") or [0] * n
    strides, dilations = (site.attributes.get(name) or [1] * n for name in ("strides", "dilations"))
    if any(o >= max(s, d) for o, s, d in zip(extra, strides, dilations, strict=True)):
        return None
    group = site.attributes.get("group", 1)
    channels, each = weight.shape[:2]
    return _made(site, _TRANSPOSE[n], weight, bias, channels, each * group, {"output_padding": tuple(extra)})


def _weights(site: Site) -> tuple[Leaf, Leaf | None, int] | None:
    """Weight, bias and spatial dimensions, if a module can have them."""
    weight, bias = site.leaf(1), site.leaf(2)
    if weight is None or (site.value(2) is not None and bias is None):
        return None
    n = len(weight.shape) - 2
    if n not in _CONV or site.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    pads = _pads(site, n)
    if pads[:n] != pads[n:] or min(pads) < 0 or not site.fits(weight) or not site.fits(bias):
        return None
    return weight, bias, n


def _pads(site: Site, n: int) -> list[int]:
    given = site.attributes.get("pads")
    return [0] * 2 * n if not given or site.attributes.get("auto_pad") == "VALID" else list(given)


def _made(
    site: Site, kind: Any, weight: Leaf, bias: Leaf | None, inputs: int, outputs: int, more: dict[str, Any]
) -> fx.Node:
    n = len(weight.shape) - 2
    module = kind(
        inputs,
        outputs,
        weight.shape[2:],
        stride=tuple(site.attributes.get("strides") or [1] * n),
        padding=tuple(_pads(site, n)[:n]),
        dilation=tuple(site.attributes.get("dilations") or [1] * n),
        groups=site.attributes.get("group", 1),
        bias=bias is not None,
        device=on_meta(),
        dtype=weight.weight.tensor.dtype,
        **more,
    )
    path = site.path(weight, bias)
    site.set(module, path, "weight", weight)
    site.set(module, path, "bias", bias)
    return site.call(module, path)
