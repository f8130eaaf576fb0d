"""Group normalisation that also trains fast on a CPU with channels last."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn import activation

NARROW, SMALL = 16, 1024
"""Channels a group and pixels of a map, below which torch's bfloat16 kernel for channels last goes value by value."""


class _ChannelsLastGroupNorm(torch.autograd.Function):
    """torch's forward with a backward made of whole-map operations; its own is 30 times slower for this layout."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels, height, width = x.shape
        whole = x.float() if _slow_in_half(x, groups) else x
        weight, bias = weight.to(whole.dtype), bias.to(whole.dtype)
        y, mean, rstd = torch.native_group_norm(whole, weight, bias, batch, channels, height * width, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (dy,) = grads
        x, weight, mean, rstd = ctx.saved_tensors
        grouped = (*mean.shape, -1)  # (B, G, channels a group)
        mean, rstd = mean.float()[:, :, None], rstd.float()[:, :, None]
        dyx = (dy * x).sum((2, 3), dtype=torch.float32).view(grouped)
        dy_sum = dy.sum((2, 3), dtype=torch.float32).view(grouped)
        weight = weight.float().view(1, mean.shape[1], -1)
        count = dyx.shape[2] * x.shape[2] * x.shape[3]
        inner, total = ((each * weight).sum(2, keepdim=True) / count for each in (dyx, dy_sum))
        slope = (total * mean - inner) * rstd**3
        offset = -slope * mean - total * rstd
        spread = (_spread(each, dyx, x) for each in (offset, slope, rstd * weight))
        dx = torch.addcmul(torch.addcmul(next(spread), x, next(spread)), dy, next(spread))
        if not ctx.needs_input_grad[1]:
            return dx, None, None, None, None
        return dx, ((dyx - mean * dy_sum) * rstd).sum(0).flatten(), dy_sum.sum(0).flatten(), None, None


def _spread(values: Tensor, like: Tensor, x: Tensor) -> Tensor:
    """Values of groups or of their channels as (B, C, 1, 1) in the format of x."""
    return values.to(x.dtype).expand(like.shape).reshape(*x.shape[:2], 1, 1)


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
        if _slow_in_half(input, self.num_groups):
            weight, bias = self.weight.float(), self.bias.float()
            return F.group_norm(input.float(), self.num_groups, weight, bias, self.eps).to(input.dtype)
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


def _slow_in_half(x: Tensor, groups: int) -> bool:
    """Channels-last maps of bfloat16, few channels a group and few pixels: torch's kernel is ten times slower there."""
    if x.dtype != torch.bfloat16 or x.shape[1] >= NARROW * groups or x[0, 0].numel() >= SMALL:
        return False
    return _slow_in_torch(x) and not torch.jit.is_tracing()
