"""Attention on a CPU's AMX tiles: a small C++ kernel, compiled once on the machine that runs it.

torch's fused kernel leaves a third of the time on the table where heads are narrow, as in Stable Diffusion 1
(docs/log.md). Without a compiler, or on other CPUs, torch's stays.
"""

from __future__ import annotations

import ctypes
import platform
import subprocess
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.nn.compiling import library, short
from fromnoise.runtime.errors import UsageError
from fromnoise.runtime.log import note, warn

FLAGS = ("-march=sapphirerapids",)
"""The first CPUs with tiles."""

WIDEST = 128
"""Channels a head that the kernel has room for."""

TOLERANCE = 0.01
"""Relative error of the kernel's answer to a trial beyond which it isn't used; bfloat16's own rounding is 0.002."""

Kernel = Callable[..., int]
"""The C function: nought when it has written its answer."""

ARGUMENTS = [ctypes.c_void_p] * 4 + [ctypes.c_int64] * 8 + [ctypes.c_float]


def supported(q: Tensor, k: Tensor, heads: int) -> bool:
    """True where `attend` may take (B, N, C) queries and (B, M, C) keys: bfloat16 on a CPU, nothing recorded."""
    if q.dtype != torch.bfloat16 or k.dtype != torch.bfloat16 or q.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return q.shape[-1] // heads <= WIDEST and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Scaled dot-product attention of (B, N, C) on (B, M, C), the heads side by side in C; gives (B, N, C).

    Only after `available` said yes, for what `supported` allows.
    """
    q, k, v = (each.contiguous() for each in (q, k, v))
    (batch, queries, channels), keys = q.shape, k.shape[1]
    mixed, width = torch.empty_like(q), channels // heads
    sizes = batch, heads, queries, keys, width, channels, channels, channels
    kernel = _kernel()
    assert kernel is not None
    if kernel(q.data_ptr(), k.data_ptr(), v.data_ptr(), mixed.data_ptr(), *sizes, width**-0.5):
        raise MemoryError("no memory to lay out attention's keys and values in")
    return mixed


def available() -> bool:
    """True when the kernel is there and right; compiles it the first time, which takes seconds, and says so."""
    return _kernel() is not None


@cache
def _kernel() -> Kernel | None:
    """The compiled function, tried once; None where it can't be had."""
    if platform.system() != "Linux" or not torch.cpu._is_amx_tile_supported():
        return None
    try:
        kernel = library("attention", FLAGS).fromnoise_attend
    except (OSError, UsageError, subprocess.SubprocessError) as error:
        note(f"attention stays with torch, a fifth slower: its own kernel can't be compiled here ({short(error)})")
        return None
    kernel.argtypes, kernel.restype = ARGUMENTS, ctypes.c_int
    if (error := _error(kernel)) > TOLERANCE:
        warn(f"attention stays with torch: the compiled kernel is wrong by {error:.1%} on this CPU")
        return None
    return kernel


def _error(kernel: Kernel) -> float:
    """The relative error of a small trial with ragged sizes against float32."""
    heads, width, queries, keys = 2, 40, 45, 77
    generator = torch.Generator().manual_seed(0)
    sizes = queries, keys, keys
    q, k, v = (torch.randn(1, n, heads * width, generator=generator).bfloat16() for n in sizes)
    mixed, channels = torch.empty_like(q), heads * width
    sizes = 1, heads, queries, keys, width, channels, channels, channels
    if kernel(q.data_ptr(), k.data_ptr(), v.data_ptr(), mixed.data_ptr(), *sizes, width**-0.5):
        return float("inf")
    a, b, c = (each.float().unflatten(-1, (heads, width)).transpose(1, 2) for each in (q, k, v))
    exact = F.scaled_dot_product_attention(a, b, c).transpose(1, 2).flatten(2)
    return float((mixed - exact).norm() / exact.norm())
