"""How a time becomes numbers that a network can use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(time: Tensor, channels: int, flip: bool = True, shift: float = 0.0) -> Tensor:
    """Times (B,) as (B, channels) cosines and sines of geometric frequencies (Vaswani et al. 2017, 3.5).

    `flip` puts the cosines first; `shift` is diffusers' `freq_shift`.
    """
    half = channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=time.device) / (half - shift)
    angles = time[:, None].float() * torch.exp(-math.log(10_000) * exponent)
    pair = (angles.cos(), angles.sin()) if flip else (angles.sin(), angles.cos())
    return torch.cat(pair, dim=-1)


class TimestepEmbedding(nn.Module):
    """A two-layer perceptron over the sinusoids."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels) to (B, channels)."""
        return self.linear_2(F.silu(self.linear_1(x)))
