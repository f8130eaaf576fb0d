"""Large maps band by band, so that what lies between two convolutions stays in a cache. Shapes: (B, C, h, w).

At 512x512 pixels a decoder's map is 64 MiB: a norm, a SiLU and a convolution that each read and write all of it wait for
memory, and so they do for fresh pages. Here a few rows at a time are normalised, activated and convolved, with exactly
the statistics of the whole map, and where a map is not needed again the answer takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function

from fromnoise.nn.convolution import Conv2d

SMALLEST = 6 << 20
"""Bytes of one picture's map from which bands pay."""

BAND = 1 << 20
"""Bytes of a band: it and the convolution's answer stay in a core's second-level cache."""

Rows = Callable[[int, int], Tensor]
"""Rows first to last (left out) of a map of one picture, (1, C, last - first, w)."""


def pay(x: Tensor, *layers: nn.Module) -> bool:
    """True where a map is large, its convolutions are packed, nobody records what happens and no layer is watched."""
    if x[0].numel() * x.element_size() < SMALLEST or x.device.type != "cpu" or has_torch_function((x,)):
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return all(map(_plain, layers)) and x.is_contiguous(memory_format=torch.channels_last)


def _plain(layer: nn.Module) -> bool:
    """A layer that is what it seems: nothing replaced its call, nothing listens, a 3x3 convolution is packed."""
    if "forward" in layer.__dict__ or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if not isinstance(layer, Conv2d):
        return isinstance(layer, nn.GroupNorm)
    return layer.weight.is_mkldnn and layer.kernel_size == (3, 3) and layer.padding == (1, 1) and layer.stride == (1, 1)


def convolve(norm: nn.GroupNorm, conv: Conv2d, x: Tensor) -> Tensor:
    """The same as `conv(F.silu(norm(x)))`."""
    made = _empty(x, conv.out_channels, 1)
    for picture, answer in zip(x.split(1), made.split(1), strict=True):
        _convolve(norm, conv, picture, answer, None)
    return made


def convolve_over(norm: nn.GroupNorm, conv: Conv2d, x: Tensor, plus: Tensor, through: nn.Module | None) -> Tensor:
    """The same as `conv(F.silu(norm(x))) + plus`, written over x; `plus` goes `through` a 1x1 convolution first."""
    for picture, added in zip(x.split(1), plus.split(1), strict=True):

        def rows(first: int, last: int, added: Tensor = added) -> Tensor:
            some = added[:, :, first:last]
            return some if through is None else through(some)

        _convolve(norm, conv, picture, picture, rows)
    return x


def convolve_doubled(conv: Conv2d, x: Tensor) -> Tensor:
    """The same as `conv(F.interpolate(x, scale_factor=2))`: every pixel becomes four."""
    made = _empty(x, conv.out_channels, 2)
    for picture, answer in zip(x.split(1), made.split(1), strict=True):
        for first, last in _bands(answer, 2):
            answer[:, :, 2 * first : 2 * last] = conv.within(_doubled(picture, first, last))
    return made


def _convolve(norm: nn.GroupNorm, conv: Conv2d, x: Tensor, answer: Tensor, plus: Rows | None) -> None:
    """One picture; `answer` may be x: a row is written after both its neighbours were read."""
    activate, height = _activation(norm, x), x.shape[2]
    lines = torch.zeros_like(x[:, :, :1])  # above the picture
    lines = torch.cat([lines, activate(x[:, :, :1])], 2)
    for first, last in _bands(x):
        below = activate(x[:, :, first + 1 : last + 1])
        lines = torch.cat([lines[:, :, -2:], below], 2)
        if last == height:
            lines = F.pad(lines, (0, 0, 0, 1))
        answer[:, :, first:last] = conv.within(lines, None if plus is None else plus(first, last))


def _activation(norm: nn.GroupNorm, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Norm and SiLU of some rows of one picture x, by the statistics of all of it."""
    share = norm.num_channels // norm.num_groups
    kept = torch.zeros(norm.num_channels), torch.ones(norm.num_channels)  # in float32, so are the measurements
    means, variances = (each.unflatten(0, (-1, share)) for each in torch.batch_norm_update_stats(x, *kept, 1.0))
    mean = means.mean(1)
    variance = variances.mean(1) + means.var(1, correction=0)  # within the channels of a group and between them
    mean, variance = (each.repeat_interleave(share) for each in (mean, variance))
    weight, bias = norm.weight.float(), norm.bias.float()

    def activate(rows: Tensor) -> Tensor:
        return F.silu(F.batch_norm(rows, mean, variance, weight, bias, eps=norm.eps), inplace=True)

    return activate


def _doubled(x: Tensor, first: int, last: int) -> Tensor:
    """Rows 2 first - 1 to 2 last of the doubled map, zeros outside it."""
    above, below = int(first == 0), int(last == x.shape[2])
    some = x[:, :, max(first - 1, 0) : last + 1]
    some = F.pad(some, (0, 0, above, below)) if above or below else some
    return F.interpolate(some, scale_factor=2.0)[:, :, 1:-1]


def _bands(x: Tensor, scale: int = 1) -> Iterator[tuple[int, int]]:
    """First and last (left out) rows of each band of x, counted in a map that is so many times smaller."""
    height = x.shape[2] // scale
    rows = max(BAND * height // (x.numel() * x.element_size()), 1)
    return pairwise([*range(0, height, rows), height])


def _empty(x: Tensor, channels: int, scale: int) -> Tensor:
    batch, _, height, width = x.shape
    sizes = batch, channels, scale * height, scale * width
    return torch.empty(sizes, dtype=x.dtype, memory_format=torch.channels_last)
