"""Resize, Upsample, and sampling of images at given places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .numbers import Integers, floats, integers, number, optional, positive
from .table import operator

Floats = Tensor | Sequence[float]

_ROUNDED = {
    "round_prefer_floor": lambda t: torch.ceil(t - 0.5),
    "round_prefer_ceil": lambda t: torch.floor(t + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}
_LINEAR, _CUBIC = 1, 2  # half the width of the kernel


@dataclass(frozen=True)
class _Method:
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0
    antialias: bool = False


@operator("Upsample", since=7)
def upsample_by_attribute(x: Tensor, scales: Sequence[float], mode: str = "nearest") -> Tensor:
    """Upsample with its scales in an attribute."""
    return resize_10(x, scales, mode)


@operator("Upsample", since=9, literals=(1,), settings=(1,))
@operator("Resize", since=10, literals=(1,), settings=(1,))
def resize_10(x: Tensor, scales: Floats, mode: str = "nearest") -> Tensor:
    """Resize of opset 10 and Upsample: asymmetric coordinates, rounded down."""
    factors = floats(scales)
    sizes = [math.floor(size * factor) for size, factor in zip(x.shape, factors, strict=True)]
    return _resized(x, _Method(mode, "asymmetric", "floor"), list(range(x.dim())), factors, sizes, [])


@operator("Resize", since=11, literals=(1, 2, 3), settings=(1, 2))
def resize(
    x: Tensor,
    roi: Floats | None = None,
    scales: Floats | None = None,
    sizes: Integers | None = None,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    keep_aspect_ratio_policy: str = "stretch",
) -> Tensor:
    """Every axis to its new size, by the nearest element or a linear or cubic kernel."""
    method = _Method(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(exclude_outside),
        extrapolation_value,
        bool(antialias),
    )
    which = list(range(x.dim())) if axes is None else [positive(axis, x.dim()) for axis in axes]
    factors, wanted = floats(scales), optional(sizes) or []
    if wanted:
        factors = [new / x.size(axis) for axis, new in zip(which, wanted, strict=True)]
        if keep_aspect_ratio_policy != "stretch":
            same = (min if keep_aspect_ratio_policy == "not_larger" else max)(factors)
            factors = [same] * len(factors)
            wanted = [math.floor(same * x.size(axis) + 0.5) for axis in which]
    else:
        wanted = [math.floor(x.size(axis) * factor) for axis, factor in zip(which, factors, strict=True)]
    return _resized(x, method, which, factors, wanted, floats(roi))


def _resized(
    x: Tensor, method: _Method, axes: list[int], factors: list[float], sizes: list[int], roi: list[float]
) -> Tensor:
    cropped = method.coordinates == "tf_crop_and_resize"
    fast = None if cropped else _by_torch(x, method, axes, factors, sizes)
    if fast is not None:
        return fast
    for k, (axis, factor, new) in enumerate(zip(axes, factors, sizes, strict=True)):
        old = x.size(axis)
        if factor == 1 and new == old and not cropped:
            continue
        window = (roi[k], roi[k + len(roi) // 2]) if cropped else None
        places = _places(method.coordinates, old, new, factor, window).to(x.device)
        y = _sampled(x, axis, places, factor, method)
        if cropped:
            outside = ((places < 0) | (places > old - 1)).reshape([-1 if d == axis else 1 for d in range(x.dim())])
            y = torch.where(outside, method.extrapolation, y)
        x = y
    return x


def _by_torch(x: Tensor, method: _Method, axes: list[int], factors: list[float], sizes: list[int]) -> Tensor | None:
    """The common cases by torch's own kernels: whole factors nearest, or bilinear images to a given size."""
    new = list(x.shape)
    for axis, size in zip(axes, sizes, strict=True):
        new[axis] = size
    if x.dim() not in (3, 4, 5) or new[:2] != list(x.shape[:2]) or method.antialias or not x.is_floating_point():
        return None
    spatial = [(factor, axis) for factor, axis in zip(factors, axes, strict=True) if axis >= 2]
    exact = all(new[axis] == x.size(axis) * factor for factor, axis in spatial)
    if method.mode == "nearest" and exact and all(factor == int(factor) for factor, _ in spatial):
        if (method.coordinates, method.rounding) in (
            ("asymmetric", "floor"),
            ("half_pixel", "round_prefer_floor"),
            ("half_pixel", "round_prefer_ceil"),
        ):
            return F.interpolate(x, tuple(new[2:]), mode="nearest")
    if method.mode == "linear" and x.dim() == 4 and exact and not method.exclude_outside:
        if method.coordinates in ("half_pixel", "align_corners") or (
            method.coordinates == "pytorch_half_pixel" and min(new[2:]) > 1
        ):
            return F.interpolate(
                x, tuple(new[2:]), mode="bilinear", align_corners=method.coordinates == "align_corners"
            )
    return None


def _places(mode: str, old: int, new: int, factor: float, roi: tuple[float, float] | None) -> Tensor:
    """Where in the old axis each new element lies, float64 [new]."""
    i = torch.arange(new, dtype=torch.float64)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and new > 1):
        return (i + 0.5) / factor - 0.5
    if mode == "pytorch_half_pixel":
        return torch.zeros_like(i)
    if mode == "half_pixel_symmetric":
        return old / 2 * (1 - new / (factor * old)) + (i + 0.5) / factor - 0.5
    if mode == "align_corners":
        length = factor * old
        return i * (old - 1) / (length - 1) if length != 1 else torch.zeros_like(i)
    if mode == "asymmetric":
        return i / factor
    if mode == "tf_crop_and_resize" and roi is not None:
        start, end = roi
        if new > 1:
            return start * (old - 1) + i * (end - start) * (old - 1) / (new - 1)
        return 0.5 * (start + end) * (old - 1) + i
    raise ValueError(f"Resize: unknown coordinate_transformation_mode {mode!r}")


def _sampled(x: Tensor, axis: int, places: Tensor, factor: float, method: _Method) -> Tensor:
    old = x.size(axis)
    if method.mode == "nearest":
        return x.index_select(axis, _ROUNDED[method.rounding](places).long().clamp(0, old - 1))
    if method.mode not in ("linear", "cubic"):
        raise ValueError(f"Resize: unknown mode {method.mode!r}")
    half = _LINEAR if method.mode == "linear" else _CUBIC
    shrink = min(factor, 1.0) if method.antialias else 1.0
    reach = math.ceil(half / shrink)
    taps = torch.floor(places).unsqueeze(1) + torch.arange(-reach + 1, reach + 1, device=x.device)
    distance = (taps - places.unsqueeze(1)).abs() * shrink
    weights = (1 - distance).clamp(min=0) if half == _LINEAR else _cubic(distance, method.cubic)
    if method.exclude_outside:
        weights = weights * ((taps >= 0) & (taps < old))
    weights = weights / weights.sum(1, keepdim=True)
    matrix = torch.zeros(len(places), old, dtype=torch.float64, device=x.device)
    matrix = matrix.scatter_add(1, taps.long().clamp(0, old - 1), weights).to(x.dtype)
    return torch.tensordot(x, matrix, ([axis], [1])).movedim(-1, axis)


def _cubic(t: Tensor, a: float) -> Tensor:
    """Keys' kernel at distance t."""
    inner = ((a + 2) * t - (a + 3)) * t * t + 1
    outer = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, inner, torch.where(t < 2, outer, torch.zeros_like(t)))


@operator("GridSample")
def grid_sample(
    x: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: int = 0
) -> Tensor:
    """``x`` at the places of the grid, which runs from -1 to 1."""
    torch_mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(x, grid, torch_mode, padding_mode, bool(align_corners))


@operator("AffineGrid", literals=(1,))
def affine_grid(theta: Tensor, size: Integers, align_corners: int = 0) -> Tensor:
    """Places of a regular grid after an affine map."""
    return F.affine_grid(theta, integers(size), bool(align_corners))


@operator("RoiAlign", since=10)
def roi_align_10(
    x: Tensor,
    rois: Tensor,
    batch: Integers,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Regions of opset 10, in coordinates of corners."""
    places = "output_half_pixel"
    return roi_align(x, rois, batch, places, mode, output_height, output_width, sampling_ratio, spatial_scale)


@operator("RoiAlign", since=16)
def roi_align(
    x: Tensor,
    rois: Tensor,
    batch: Integers,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Regions [K, 4] of ``x`` [N, C, H, W], each pooled to [C, output_height, output_width]."""
    half = coordinate_transformation_mode == "half_pixel"
    pooled = []
    for roi, image in zip(rois, integers(batch), strict=True):
        x1, y1, x2, y2 = (roi * spatial_scale - (0.5 if half else 0.0)).unbind()
        width, height = x2 - x1, y2 - y1
        if not half:
            width, height = width.clamp(min=1), height.clamp(min=1)
        rows = sampling_ratio or math.ceil(number(height) / output_height)
        columns = sampling_ratio or math.ceil(number(width) / output_width)
        ys = _steps(y1, height, output_height, rows)
        xs = _steps(x1, width, output_width, columns)
        corners = _bilinear(x[image], ys, xs)
        values = corners.amax(0) if mode == "max" else corners.sum(0)
        values = values.reshape(-1, output_height, rows, output_width, columns)
        pooled.append(values.amax((2, 4)) if mode == "max" else values.mean((2, 4)))
    return torch.stack(pooled)


def _steps(start: Tensor, length: Tensor, bins: int, samples: int) -> Tensor:
    """Places of the samples along one side of a region."""
    return start + (torch.arange(bins * samples, device=start.device) + 0.5) * length / bins / samples


def _bilinear(image: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """The four weighted neighbours of each place, [4, C, len(ys), len(xs)], zero outside of the image."""
    height, width = image.shape[1:]
    inside = ((ys >= -1) & (ys <= height)).unsqueeze(1) & ((xs >= -1) & (xs <= width))
    ys, xs = ys.clamp(0, height - 1), xs.clamp(0, width - 1)
    top, left = ys.floor().long(), xs.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, across = (ys - top).unsqueeze(1), xs - left

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        return image.index_select(1, rows).index_select(2, columns)

    corners = [
        at(top, left) * (1 - down) * (1 - across),
        at(top, right) * (1 - down) * across,
        at(bottom, left) * down * (1 - across),
        at(bottom, right) * down * across,
    ]
    return torch.stack(corners) * inside
