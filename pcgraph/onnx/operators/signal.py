"""Fourier transforms and windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..dtypes import torch_dtype
from .numbers import Number, number, positive
from .table import operator


@operator("DFT", since=17, literals=(1,))
def dft_by_attribute(
    x: Tensor, length: Number | None = None, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Tensor:
    """Discrete Fourier transform, the axis an attribute."""
    return dft(x, length, axis, inverse, onesided)


@operator("DFT", since=20, literals=(1, 2))
def dft(x: Tensor, length: Number | None = None, axis: Number = -2, inverse: int = 0, onesided: int = 0) -> Tensor:
    """Discrete Fourier transform of [..., 1] (real) or [..., 2] (complex), forward or inverse, in double precision."""
    along = positive(int(number(axis)), x.dim())
    wide = x.double()
    z = torch.view_as_complex(wide.contiguous()) if x.size(-1) == 2 else wide[..., 0]
    n = None if length is None else int(number(length))
    if inverse:
        if onesided:
            return torch.fft.irfft(z, n, along).unsqueeze(-1).to(x.dtype)
        return torch.view_as_real(torch.fft.ifft(z, n, along)).to(x.dtype)
    y = torch.fft.fft(z, n, along)
    return torch.view_as_real(y.narrow(along, 0, y.size(along) // 2 + 1) if onesided else y).to(x.dtype)


@operator("STFT", literals=(1, 3))
def stft(
    signal: Tensor,
    frame_step: Number,
    window: Tensor | None = None,
    frame_length: Number | None = None,
    onesided: int = 1,
) -> Tensor:
    """Short-time Fourier transform of [B, L, 1] (real) or [B, L, 2] (complex): [B, frames, bins, 2]."""
    step = int(number(frame_step))
    length = window.numel() if window is not None else int(number(frame_length)) if frame_length is not None else 0
    if not length:
        raise ValueError("STFT: neither window nor frame_length")
    z = torch.view_as_complex(signal.contiguous()) if signal.size(-1) == 2 else signal.squeeze(-1)
    frames = z.unfold(1, length, step)
    frames = frames if window is None else frames * window
    y = torch.fft.fft(frames)
    return torch.view_as_real(y.narrow(-1, 0, length // 2 + 1) if onesided else y)


def _window(size: Number, periodic: int, terms: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """Sum of cosines over ``size`` points."""
    count = int(number(size))
    t = torch.arange(count, dtype=torch.float64) * (2 * math.pi / (count if periodic else count - 1))
    return torch.stack([a * torch.cos(k * t) for k, a in enumerate(terms)]).sum(0).to(dtype)


@operator("HannWindow", literals=(0,))
def hann_window(size: Number, periodic: int = 1, output_datatype: int = 1) -> Tensor:
    """Hann's window."""
    return _window(size, periodic, (0.5, -0.5), torch_dtype(output_datatype))


@operator("HammingWindow", literals=(0,))
def hamming_window(size: Number, periodic: int = 1, output_datatype: int = 1) -> Tensor:
    """Hamming's window."""
    return _window(size, periodic, (25 / 46, -21 / 46), torch_dtype(output_datatype))


@operator("BlackmanWindow", literals=(0,))
def blackman_window(size: Number, periodic: int = 1, output_datatype: int = 1) -> Tensor:
    """Blackman's window."""
    return _window(size, periodic, (0.42, -0.5, 0.08), torch_dtype(output_datatype))


@operator("MelWeightMatrix", literals=(0, 1, 2, 3, 4))
def mel_weight_matrix(
    bins: Number, length: Number, rate: Number, low: Number, high: Number, output_datatype: int = 1
) -> Tensor:
    """Matrix [length // 2 + 1, bins] of triangles that are evenly spaced on the mel scale."""
    count, size = int(number(bins)), int(number(length))
    mels = [2595 * math.log10(1 + float(number(frequency)) / 700) for frequency in (low, high)]
    step = (mels[1] - mels[0]) / (count + 2)
    points = mels[0] + step * torch.arange(count + 2, dtype=torch.float64)
    edges = torch.floor((size + 1) * (700 * (10 ** (points / 2595) - 1)) / int(number(rate))).long().tolist()
    weights = torch.zeros(size // 2 + 1, count, dtype=torch.float64)
    for k in range(count):
        lower, centre, upper = edges[k : k + 3]
        if lower == centre:
            weights[centre, k] = 1
        else:
            weights[lower : centre + 1, k] = (torch.arange(lower, centre + 1) - lower).double() / (centre - lower)
        if centre < upper:
            weights[centre:upper, k] = (upper - torch.arange(centre, upper)).double() / (upper - centre)
    return weights.to(torch_dtype(output_datatype))
