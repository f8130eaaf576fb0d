"""Group norm and SiLU together, by a small C++ kernel for bfloat16 maps with channels last on a CPU.

Shapes: (B, C, h, w). torch makes five passes over such a map, some of them slow; here one measures, and one writes. The
kernel needs AVX512-BF16 and a C++ compiler, and is compiled once where it runs; elsewhere torch's operations stay.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from fromnoise.nn.compiling import library, short
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn

FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mfma")

LANES = 16
"""Channels that the kernel takes at a time."""

TOLERANCE = 0.01
"""Relative error of the kernel's answer to a trial beyond which it isn't used; bfloat16's own rounding is 0.002."""

POINTER, COUNT = ctypes.c_void_p, ctypes.c_int64


def supported(norm: nn.Module, x: Tensor) -> bool:
    """True where `silu_of` may take a map: such as the module's first lines say, with nobody listening or recording."""
    if not isinstance(norm, nn.GroupNorm) or norm._forward_hooks or norm._forward_pre_hooks:
        return False
    if x.dtype != torch.bfloat16 or x.device.type != "cpu" or torch.is_grad_enabled() or has_torch_function((x,)):
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.shape[1] % LANES:
        return False
    return norm.weight.dtype == x.dtype and x.is_contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Activation:
    """SiLU of what a norm makes of one picture's map: `scale` and `shift` (C,) in float32, by the whole of it."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, norm: nn.GroupNorm, x: Tensor) -> Activation:
        """Measure (1, C, h, w), which `supported` allows."""
        scale, shift = torch.empty(2, x.shape[1]).unbind()
        sizes = x.shape[2] * x.shape[3], x.shape[1], norm.num_groups, norm.eps
        values = (each.data_ptr() for each in (norm.weight, norm.bias, scale, shift))
        _kernels().fromnoise_measure(x.data_ptr(), *sizes, *values)
        return cls(scale, shift)

    def __call__(self, x: Tensor, into: Tensor) -> Tensor:
        """Rows of the map (1, C, n, w), written `into` as many, which may be the same; both lie without gaps."""
        sizes = x.shape[2] * x.shape[3], x.shape[1]
        _kernels().fromnoise_activate(
            x.data_ptr(), into.data_ptr(), *sizes, self.scale.data_ptr(), self.shift.data_ptr()
        )
        return into


def silu_of(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """The same as `F.silu(norm(x))`, only after `available` said yes, for what `supported` allows."""
    made = torch.empty_like(x)
    for picture, answer in zip(x.split(1), made.split(1), strict=True):
        Activation.of(norm, picture)(picture, answer)
    return made


@cache
def available() -> bool:
    """True when the kernel is there and right; compiles it the first time, which takes seconds, and says so."""
    if _kernels() is None:
        return False
    if (error := _error()) > TOLERANCE:
        warn(f"norms stay with torch: the compiled kernel is wrong by {error:.1%} on this CPU")
    return error <= TOLERANCE


@cache
def _kernels() -> Any:
    """The compiled functions; None where they can't be had."""
    if platform.system() != "Linux" or not torch.cpu._is_avx512_bf16_supported():
        return None
    try:
        kernels = library("norm", FLAGS)
    except (OSError, UsageError, subprocess.SubprocessError) as error:
        note(f"norms stay with torch, which is slower: their own kernel can't be compiled here ({short(error)})")
        return None
    kernels.fromnoise_measure.argtypes = [POINTER, *[COUNT] * 3, ctypes.c_double, *[POINTER] * 4]
    kernels.fromnoise_activate.argtypes = [POINTER, POINTER, COUNT, COUNT, POINTER, POINTER]
    kernels.fromnoise_measure.restype = kernels.fromnoise_activate.restype = None
    return kernels


@torch.no_grad()
def _error() -> float:
    """The relative error against float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 32, 5, 7, generator=generator).bfloat16().contiguous(memory_format=torch.channels_last)
    norm = nn.GroupNorm(4, 32).bfloat16()
    norm.weight.copy_(torch.randn(32, generator=generator))
    exact = F.silu(F.group_norm(x.float(), 4, norm.weight.float(), norm.bias.float(), norm.eps))
    return float((silu_of(norm, x) - exact).norm() / exact.norm())
