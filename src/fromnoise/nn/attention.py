"""Attention over pixels and words. Shapes: B batch, N tokens, C channels, H heads, D channels a head."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn import tiles
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.eight_bit import EightBitLinear
from fromnoise.nn.norm import GroupNorm
from fromnoise.nn.quantising import gated
from fromnoise.nn.token_merging import Merging, merging

ROWS = 512
"""Queries that attend together in `_by_rows`: their scores stay in a core's second-level cache."""

TOKENS = 2048
"""Tokens that go through an 8-bit feed-forward together: what lies between its layers is neither fetched nor stored."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) of (B, H, N, D) on (B, H, M, D)."""
    if _rows_pay(q, k):
        return _by_rows(q, k, v)
    return _learnt(q, k, v) if _learns(q, k) else F.scaled_dot_product_attention(q, k, v)


def _learns(q: Tensor, k: Tensor) -> bool:
    """Few bfloat16 tokens on a CPU that want a gradient: torch's plain kernel turns them into float32."""
    if q.dtype != torch.bfloat16 or q.device.type != "cpu" or max(q.shape[-2], k.shape[-2]) > 2 * ROWS:
        return False
    return q.requires_grad and not torch.jit.is_tracing()


def _learnt(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same in products of bfloat16, whose gradient is products again."""
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v


def _rows_pay(q: Tensor, k: Tensor) -> bool:
    """Many bfloat16 tokens on a CPU without AMX tiles, where torch's fused kernel is half as fast as its products."""
    if q.dtype != torch.bfloat16 or q.device.type != "cpu" or min(q.shape[-2], k.shape[-2]) < 2 * ROWS:
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch.cpu._is_amx_tile_supported()


def _by_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same, one head and `ROWS` queries at a time, in products that oneDNN is fastest with."""
    mixed = torch.empty_like(q, memory_format=torch.contiguous_format)
    q, turned = q * q.shape[-1] ** -0.5, k.transpose(-2, -1)
    for head in product(range(q.shape[0]), range(q.shape[1])):
        for some, into in zip(q[head].split(ROWS), mixed[head].split(ROWS), strict=True):
            torch.mm((some @ turned[head]).softmax(-1), v[head], out=into)
    return mixed


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2); cross-attention when given a context.

    `upcast` attends in float32 in a half-precision network: SD 2.1's products overflow float16. `tiled` lets the
    compiled kernel of `nn.tiles` attend, where it can; the eager engine sets it.
    """

    tiled = False

    def __init__(self, channels: int, heads: int, context_channels: int | None = None, upcast: bool = False) -> None:
        super().__init__()
        self.heads, self.upcast = heads, upcast
        context_channels = context_channels or channels
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Identity()])

    def forward(self, x: Tensor, context: Tensor | None = None, perturbed: Tensor | None = None) -> Tensor:
        """(B, N, C) attends to itself, or to a context (B, M, context_channels); gives (B, N, C).

        In the rows where `perturbed` (B,) is true every token sees itself only: perturbed self-attention (Ahn et al.
        2024).
        """
        context = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        if self.tiled and perturbed is None and not self.upcast and tiles.supported(q, k, self.heads):
            return self.to_out[0](tiles.attend(q, k, v, self.heads))
        q, k, v = self._split(q), self._split(k), self._split(v)
        mixed = self._attend(q, k, v)
        if perturbed is not None:
            mixed = torch.where(perturbed[:, None, None, None], v, mixed)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, N, C) -> (B, H, N, D)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.upcast and q.element_size() < 4:
            return attend(q.float(), k.float(), v.float()).to(v.dtype)
        return attend(q, k, v)


class GEGLU(nn.Module):
    """Gated linear unit with GELU (Shazeer 2020, "GLU variants improve transformer", eq. 6)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, N, inner)."""
        if self._fuses(x):
            return self._fused(x)
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)

    def _fuses(self, x: Tensor) -> bool:
        """In bfloat16 on a CPU, unless an adapter sits beside the projection or something records what happens."""
        if {x.dtype, self.proj.weight.dtype} != {torch.bfloat16} or x.device.type != "cpu" or torch.is_grad_enabled():
            return False
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.backends.mkldnn.is_available():
            return False
        return "forward" not in self.proj.__dict__ and not self.proj._forward_hooks

    def _fused(self, x: Tensor) -> Tensor:
        """The same with GELU and the product inside oneDNN's kernels, without the passes over memory that they cost."""
        (value, gate), (value_bias, gate_bias) = self.proj.weight.chunk(2), self.proj.bias.chunk(2)
        opened = torch.ops.mkldnn._linear_pointwise(x, gate, gate_bias, "gelu", [], "none")
        return torch.ops.mkldnn._linear_pointwise.binary(x, opened, value, value_bias, "mul")


class FeedForward(nn.Module):
    """The transformer's two-layer perceptron, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        opens = self.net[0].proj
        if isinstance(opens, EightBitLinear) and opens.takes_numbers(x):
            return _in_numbers(opens, self.net[2], x)
        return self.net(x)


def _in_numbers(opens: EightBitLinear, closes: nn.Module, x: Tensor) -> Tensor:
    """The feed-forward whose first layer is in 8 bits, and perhaps its last, `TOKENS` at a time."""
    assert opens.steps is not None
    tokens, numbers = x.flatten(0, -2), opens.steps.of
    opened = (opens.of_numbers(numbers(some), x.dtype) for some in tokens.split(TOKENS))
    if isinstance(closes, EightBitLinear) and closes.steps is not None and closes.takes_numbers(x):
        between = torch.empty(len(tokens), closes.in_features, dtype=torch.uint8)
        for some, into in zip(opened, between.split(TOKENS), strict=True):
            closes.steps.of_gated(some, into)
        return closes.of_numbers(between, x.dtype).view(x.shape)
    return torch.cat([closes(gated(some)) for some in opened]).view(x.shape)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the words, feed-forward: each normalised before, added after."""

    def __init__(self, channels: int, heads: int, context_channels: int, upcast: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, upcast=upcast)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, heads, context_channels, upcast)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        perturbed: Tensor | None = None,
        merge: Callable[[Tensor], Merging | None] | None = None,
    ) -> Tensor:
        """(B, N, C) and words (B, M, context_channels) to (B, N, C).

        `perturbed` is self-attention's; `merge` says which of its tokens become one.
        """
        merged = None if merge is None else merge(x)
        if merged is None:
            x = x + self.attn1(self.norm1(x), perturbed=perturbed)
        else:
            x = x + merged.unmerge(self.attn1(merged.merge(self.norm1(x)), perturbed=perturbed))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map (Rombach et al. 2022, section 3.3).

    `linear` projects pixels as tokens (SD 2.x, SDXL) where SD 1.x uses 1x1 convolutions.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        context_channels: int,
        groups: int,
        depth: int = 1,
        linear: bool = False,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels) if linear else Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, heads, context_channels, upcast) for _ in range(depth)
        )
        self.proj_out = nn.Linear(channels, channels) if linear else Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor, perturbed: Tensor | None = None, merge: float = 0.0) -> Tensor:
        """A map (B, C, h, w) and words (B, M, context_channels) to a map (B, C, h, w).

        `merge` is the share of the pixels that self-attention does without (see `nn.token_merging`).
        """
        height, width = x.shape[-2:]
        merges = partial(merging, size=(height, width), share=merge) if merge else None
        tokens = self._to_tokens(self.norm(x))
        for block in self.transformer_blocks:
            tokens = block(tokens, context, perturbed, merges)
        return x + self._to_map(tokens, height, width)

    def _to_tokens(self, x: Tensor) -> Tensor:
        if self.linear:
            return self.proj_in(x.flatten(2).transpose(1, 2))
        return self.proj_in(x).flatten(2).transpose(1, 2)

    def _to_map(self, tokens: Tensor, height: int, width: int) -> Tensor:
        if self.linear:
            return self.proj_out(tokens).transpose(1, 2).unflatten(2, (height, width))
        return self.proj_out(tokens.transpose(1, 2).unflatten(2, (height, width)))
