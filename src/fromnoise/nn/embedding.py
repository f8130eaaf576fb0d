"""How a time, a size or a guidance scale becomes numbers that a network can use."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(time: Tensor, channels: int, flip: bool = True, shift: float = 0.0) -> Tensor:
    """Times (B,) as (B, channels) cosines and sines of geometric frequencies (Vaswani et al. 2017, 3.5).

    `flip` puts the cosines first; `shift` is diffusers' `freq_shift`. The order of operations is diffusers' too: at
    a thousand radians a different rounding of the frequency would show.
    """
    half = channels // 2
    exponent = -math.log(10_000) * torch.arange(half, dtype=torch.float32, device=time.device) / (half - shift)
    angles = time[:, None].float() * torch.exp(exponent)
    pair = (angles.cos(), angles.sin()) if flip else (angles.sin(), angles.cos())
    return torch.cat(pair, dim=-1)


def guidance_sinusoids(guidance: Tensor, channels: int) -> Tensor:
    """Guidance scales w (B,) as (B, channels) sines and cosines, as Luo et al. 2023 (LCM) embed them.

    The formula and its rounding are those that the published networks were trained with: 1000 w radians and more.
    """
    half = channels // 2
    rate = math.log(10_000) / (half - 1)
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32, device=guidance.device) * -rate)
    angles = (guidance.float() * 1000.0)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class TimestepEmbedding(nn.Module):
    """A two-layer perceptron over the sinusoids, to which an embedded guidance scale may be added before."""

    def __init__(self, in_channels: int, channels: int, guidance_channels: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, channels)
        if guidance_channels is not None:
            self.cond_proj = nn.Linear(guidance_channels, in_channels, bias=False)
        self.linear_2 = nn.Linear(channels, channels)

    def forward(self, x: Tensor, guidance: Tensor | None = None) -> Tensor:
        """(B, in_channels), and (B, guidance_channels) where the network has them, to (B, channels)."""
        if guidance is not None:
            x = x + self.cond_proj(guidance)
        return self.linear_2(F.silu(self.linear_1(x)))


class TextEmbedding(nn.Module):
    """A prompt's words as one vector that speaks to every pixel beside the time (diffusers' `TextTimeEmbedding`).

    Starts silent: `norm2` gives zeros until it has learnt.
    """

    def __init__(self, words: int, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(words)
        self.pool = AttentionPooling(words, heads)
        self.proj = nn.Linear(words, channels)
        self.norm2 = nn.LayerNorm(channels)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, words: Tensor) -> Tensor:
        """(B, M, words) to (B, channels)."""
        return self.norm2(self.proj(self.pool(self.norm1(words))))


class AttentionPooling(nn.Module):
    """One query, the words' mean moved by a learnt vector, attends to the words and itself (CLIP's, as IF has it)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(1, channels))
        nn.init.normal_(self.positional_embedding, std=channels**-0.5)
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(channels, channels) for _ in range(3))

    def forward(self, words: Tensor) -> Tensor:
        """(B, M, channels) to (B, channels)."""
        query = words.mean(1, keepdim=True) + self.positional_embedding
        seen = torch.cat([query, words], 1)
        given = self.q_proj(query), self.k_proj(seen), self.v_proj(seen)
        q, k, v = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in given)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)
