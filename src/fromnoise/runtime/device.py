"""Which device and which number format to use when nobody said."""

from __future__ import annotations

import platform
import subprocess
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from fromnoise.runtime.errors import UsageError

M = TypeVar("M", bound=nn.Module)

SMALL = 10_000_000
"""Parameters of a network up to which half precision gains nothing; the embedded model has twice as many."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Number formats by name."""


def pick_device(name: str | None = None) -> torch.device:
    """The named device, else CUDA, else Apple's MPS, else the CPU."""
    if name:
        return _named_device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _named_device(name: str) -> torch.device:
    """UsageError for a device that torch doesn't know or has no driver for here."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).splitlines()[0]
        raise UsageError(f"no device {name!r} here ({said}); choose cpu, or leave it out") from error
    return device


def channels_last(module: M) -> M:
    """The same module with its convolutions' weights laid out for channels last, which oneDNN is fastest with."""
    return module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def pick_dtype(name: str | None, device: torch.device, parameters: int) -> torch.dtype:
    """The named number format; else bfloat16 for a network that is not small, where the device computes with it.

    UsageError for a name that is none, and for float16 on a CPU, where it is emulated and very slow.
    """
    if name in (None, "auto"):
        return torch.bfloat16 if parameters >= SMALL and has_bfloat16(device) else torch.float32
    if not isinstance(name, str) or name not in DTYPES:
        raise UsageError(f"no dtype {name!r}; choose one of auto, {', '.join(DTYPES)}")
    if name == "float16" and device.type == "cpu":
        raise UsageError("float16 is very slow on a CPU; choose bfloat16, its half precision, or float32")
    return DTYPES[name]


def has_bfloat16(device: torch.device) -> bool:
    """True where the hardware has instructions for bfloat16: AVX512-BF16, AMX, Arm BF16, recent CUDA devices."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _cpu_has_bfloat16()


def product_dtype(device: torch.device) -> torch.dtype:
    """The number format whose products are fastest where a relative error of 0.002 doesn't matter."""
    emulates = device.type in ("cpu", "cuda") and not has_bfloat16(device)
    return torch.float32 if emulates else torch.bfloat16


def mixed_precision(device: str | torch.device = "cpu") -> AbstractContextManager[Any]:
    """torch's autocast to bfloat16 where the device computes with it; nothing where that would be emulated.

    On a CPU with AVX-512 alone float32 products are four times as fast.
    """
    device = torch.device(device)
    dtype = product_dtype(device)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


@cache
def _cpu_has_bfloat16() -> bool:
    if platform.machine().lower() in ("arm64", "aarch64"):
        return _arm_has_bfloat16()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _arm_has_bfloat16() -> bool:
    """What Linux or macOS says about the CPU."""
    if platform.system() == "Darwin":
        asked = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == "1"
    features = Path("/proc/cpuinfo")
    return features.is_file() and " bf16" in features.read_text()


@cache
def cpu_name() -> str:
    """The CPU by name, with what sets the fast ones apart, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = next((line for line in lines if line.startswith("model name")), "")
    name = named.partition(":")[2].strip() or platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}{', bfloat16' if _cpu_has_bfloat16() else ''})"
