"""Which device and which number format to use when nobody said."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def pick_device(name: str | None = None) -> torch.device:
    """The named device, else CUDA, else Apple's MPS, else the CPU."""
    if name:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def channels_last(module: M) -> M:
    """The same module with its convolutions' weights laid out for channels last, which oneDNN is fastest with."""
    return module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
