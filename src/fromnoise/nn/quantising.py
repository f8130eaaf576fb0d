"""Activations made 8-bit, unsigned: a small C++ kernel where there is a compiler, torch's own operations elsewhere.

A value x is kept as round(x * scale) + zero, with one scale a channel, cut off at 0 and 255 (Jacob et al. 2018, eq. 1).
Shapes: B batch, C channels, h and w of a map, N tokens.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.nn.compiling import library, short
from fromnoise.nn.norm import GroupNorm
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn

FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma")

TOP = 255
"""The largest of the 8-bit numbers."""

MIXED = 16
"""Channels that are mixed with one another, which lie as far apart."""

POINTER, COUNT, NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float

ARGUMENTS: Mapping[str, list[Any]] = {
    "normalising": [*[POINTER] * 6, *[COUNT] * 4, NUMBER, COUNT],
    "quantise": [*[POINTER] * 5, *[COUNT] * 6, NUMBER, COUNT],
    "gate": [*[POINTER] * 2, *[COUNT] * 2],
    "quantise_gated": [*[POINTER] * 3, *[COUNT] * 2, NUMBER, COUNT],
    "quantise_mixed": [*[POINTER] * 3, *[COUNT] * 2, NUMBER, COUNT],
}
"""What the compiled functions take, by name without `fromnoise_`; all but `gate` end with whether values are `WIDE`."""

WIDE = {torch.bfloat16: 0, torch.float32: 1}
"""Number formats that the compiled functions take."""


@dataclass(frozen=True)
class Steps:
    """How a layer's inputs are kept in 8 bits: steps a unit for each channel, (C,) in float32, and the number of 0.

    With `mixes` the channels are `mixed` before; a layer of maps doesn't do that.
    """

    scale: Tensor
    zero: int
    mixes: bool = False

    def of(self, x: Tensor) -> Tensor:
        """Channels last of any shape (..., C) as 8-bit numbers of that shape."""
        kernels = None if self.mixes else _kernels_for(x)
        if kernels is None:
            return _rounded(x, self)
        x, made = x.contiguous(), torch.empty(x.shape, dtype=torch.uint8)
        sizes = 1, 1, x.numel() // x.shape[-1], x.shape[-1], 0, 0
        _quantise(kernels, x, (None, None), self, made, sizes)
        return made

    def of_map(self, x: Tensor, pad: int) -> Tensor:
        """A map (B, C, h, w) with `pad` pixels of 0 around it, channels last."""
        kernels = _kernels_for(x)
        if kernels is None:
            return _padded(_rounded(x.permute(0, 2, 3, 1), self), pad, self.zero)
        return self._mapped(kernels, x, pad)

    def of_normalised(self, norm: GroupNorm, x: Tensor, shift: Tensor | None, pad: int) -> Tensor:
        """The same of SiLU of the normalised x + shift, with shift (B, C); without ever storing that."""
        kernels = _kernels_for(x)
        if kernels is None:
            moved = x if shift is None else x + shift[:, :, None, None]
            return _padded(_rounded(F.silu(norm(moved)).permute(0, 2, 3, 1), self), pad, self.zero)
        x = x.contiguous(memory_format=torch.channels_last)
        (batch, channels, height, width), shift = x.shape, None if shift is None else shift.float().contiguous()
        line = torch.empty(2, batch, channels)
        weights = norm.weight.float(), norm.bias.float()
        kernels.fromnoise_normalising(
            x.data_ptr(),
            None if shift is None else shift.data_ptr(),
            *(each.data_ptr() for each in weights),
            *(each.data_ptr() for each in line),
            *(batch, height * width, channels, norm.num_groups),
            *(norm.eps, WIDE[x.dtype]),
        )
        return self._mapped(kernels, x, pad, line)

    def of_gated(self, x: Tensor, into: Tensor | None = None) -> Tensor:
        """The first half of the channels times GELU of the second: (..., 2 C) to (..., C), contiguous `into` or new."""
        made = torch.empty(*x.shape[:-1], x.shape[-1] // 2, dtype=torch.uint8) if into is None else into
        kernels = _kernels_for(x)
        if kernels is None:
            value, gate = x.chunk(2, dim=-1)
            return made.copy_(_rounded(value * F.gelu(gate), self))
        x, channels = x.contiguous(), made.shape[-1]
        sizes = made.numel() // channels, channels
        quantise = kernels.fromnoise_quantise_mixed if self.mixes else kernels.fromnoise_quantise_gated
        quantise(x.data_ptr(), self.scale.data_ptr(), made.data_ptr(), *sizes, self.zero, WIDE[x.dtype])
        return made

    def _mapped(self, kernels: Any, x: Tensor, pad: int, line: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        batch, channels, height, width = x.shape
        made = torch.empty(batch, height + 2 * pad, width + 2 * pad, channels, dtype=torch.uint8)
        lines = (None, None) if line is None else tuple(each.data_ptr() for each in line)
        sizes = batch, height, width, channels, pad, int(line is not None)
        _quantise(kernels, x, lines, self, made, sizes)
        return made.permute(0, 3, 1, 2)


def mixable(channels: int) -> bool:
    """True where a layer of so many inputs may have them `mixed`."""
    return channels % MIXED**2 == 0


def mixed(x: Tensor) -> Tensor:
    """Each sixteen channels that lie 16 apart times the Hadamard matrix of order 16, (..., C); twice gives x again.

    What one channel has too much of is shared by sixteen, so that fewer steps are lost on it (Ashkboos et al. 2024,
    "QuaRot", section 4).
    """
    blocks = x.unflatten(-1, (-1, MIXED, MIXED)).transpose(-1, -2)
    return (blocks @ _hadamard().to(x)).transpose(-1, -2).reshape(x.shape)


@cache
def _hadamard() -> Tensor:
    """(16, 16), by Sylvester's construction, orthogonal and symmetric."""
    made = torch.ones(1, 1)
    while len(made) < MIXED:
        made = torch.cat([torch.cat([made, made], 1), torch.cat([made, -made], 1)])
    return made / MIXED**0.5


def gated(x: Tensor) -> Tensor:
    """The first half of the channels times GELU of the second: (..., 2 C) to (..., C)."""
    kernels = _kernels() if x.dtype == torch.bfloat16 else None
    if kernels is None:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)
    x, channels = x.contiguous(), x.shape[-1] // 2
    made = torch.empty(*x.shape[:-1], channels, dtype=x.dtype)
    kernels.fromnoise_gate(x.data_ptr(), made.data_ptr(), made.numel() // channels, channels)
    return made


def _quantise(
    kernels: Any, x: Tensor, lines: Sequence[int | None], steps: Steps, made: Tensor, sizes: Sequence[int]
) -> None:
    """Numbers of x, times slopes and plus offsets (`lines`) if there are any, into `made`."""
    to = steps.scale.data_ptr(), made.data_ptr()
    kernels.fromnoise_quantise(x.data_ptr(), *lines, *to, *sizes, steps.zero, WIDE[x.dtype])


def _rounded(x: Tensor, steps: Steps) -> Tensor:
    """(..., C) as 8-bit numbers, in float32 all the way."""
    x = mixed(x.float()) if steps.mixes else x.float()
    return (x * steps.scale).round_().add_(steps.zero).nan_to_num_(0).clamp_(0, TOP).to(torch.uint8)


def _padded(x: Tensor, pad: int, zero: int) -> Tensor:
    """(B, h, w, C) with a border of `zero`, as (B, C, h, w)."""
    return F.pad(x, (0, 0, pad, pad, pad, pad), value=zero).permute(0, 3, 1, 2)


def available() -> bool:
    """True when the kernels are there and right; compiles them the first time, which takes seconds, and says so."""
    return _kernels() is not None


def _kernels_for(x: Tensor) -> Any:
    """The compiled functions where there are any for such values."""
    return _kernels() if x.dtype in WIDE else None


@cache
def _kernels() -> Any:
    """The compiled functions, tried once; None where they can't be had."""
    if platform.system() != "Linux" or not torch.cpu._is_avx512_supported():
        return None
    try:
        kernels = library("quantise", FLAGS)
    except (OSError, UsageError, subprocess.SubprocessError) as error:
        note(f"rounding to int8 stays with torch, which is slower: no kernel can be compiled here ({short(error)})")
        return None
    for name, arguments in ARGUMENTS.items():
        getattr(kernels, f"fromnoise_{name}").argtypes = arguments
    if not _is_right(kernels):
        warn("rounding to int8 stays with torch, which is slower: the compiled kernel is wrong on this CPU")
        return None
    return kernels


def _is_right(kernels: Any) -> bool:
    """True when a small trial agrees with torch to one step."""
    exact = torch.linspace(-3, 3, 4 * 36).view(4, 36)
    steps, sizes = Steps(torch.linspace(20, 40, 36), 100), (1, 1, 4, 36, 0, 0)

    def near(x: Tensor) -> bool:
        made = torch.empty(4, 36, dtype=torch.uint8)
        _quantise(kernels, x, (None, None), steps, made, sizes)
        return bool((made.int() - _rounded(x, steps).int()).abs().max() <= 1)

    return all(near(exact.to(each)) for each in WIDE)
