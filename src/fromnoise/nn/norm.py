"""Group normalisation that also trains fast on a CPU with channels last."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn import activation


class _ChannelsLastGroupNorm(torch.autograd.Function):
    """torch's forward with a backward made of whole-map operations; its own is 30 times slower for this layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, weight, mean, rstd = ctx.saved_tensors
        share = x.shape[1] // mean.shape[1]
        mean, rstd = (each.float().repeat_interleave(share, 1) for each in (mean, rstd))  # (B, C)
        dyx, dy_sum = ((dy * x).sum((2, 3), dtype=torch.float32), dy.sum((2, 3), dtype=torch.float32))
        weight = weight.float()
        inner, total = (_group_mean(each * weight, share, x) for each in (dyx, dy_sum))
        slope = (total * mean - inner) * rstd**3
        offset = -slope * mean - total * rstd
        spread = (each.to(x.dtype)[:, :, None, None] for each in (offset, slope, rstd * weight))
        dx = torch.addcmul(torch.addcmul(next(spread), x, next(spread)), dy, next(spread))
        return dx, ((dyx - mean * dy_sum) * rstd).sum(0), dy_sum.sum(0), None, None


def _group_mean(x: Tensor, share: int, like: Tensor) -> Tensor:
    """Sums per channel (B, C) as their group's mean over channels and pixels, repeated to (B, C)."""
    grouped = x.unflatten(1, (-1, share)).sum(2) / (share * like.shape[2] * like.shape[3])
    return grouped.repeat_interleave(share, 1)


class GroupNorm(nn.GroupNorm):
    """torch's group normalisation (Wu & He 2018, eq. 1), with a fast gradient for channels-last maps on a CPU.

    `fused` lets the compiled kernel of `nn.activation` norm and activate at once, where it can; the eager engine sets
    it.
    """

    fused = False

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        if self.training and _slow_in_torch(input):
            return _ChannelsLastGroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(input)


def silu_of(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU of a normalised map, in the norm's own memory where no gradient will ask for it."""
    if getattr(norm, "fused", False) and activation.supported(norm, x):
        return activation.silu_of(cast(GroupNorm, norm), x)
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


def _slow_in_torch(x: Tensor) -> bool:
    """Channels last on a CPU, and no compiler that would make its own gradient."""
    if torch.compiler.is_compiling() or x.device.type != "cpu":
        return False
    return x.is_contiguous(memory_format=torch.channels_last)
