"""Large maps band by band, so that what lies between two convolutions takes little memory. Shapes: (B, C, h, w).

At 512x512 pixels a decoder's map is 64 MiB, at 1024x1024 256 MiB, and a residual block made at once holds five. Here
some rows at a time are normalised, activated and convolved, with exactly the statistics of the whole map, and where a
map is not needed again the answer takes its place: a block holds two maps and some bands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function
from torch.utils.weak import WeakIdKeyDictionary

from fromnoise.nn import activation
from fromnoise.nn.activation import Activation
from fromnoise.nn.convolution import Conv2d, dense

SMALLEST = 16 << 20
"""Bytes of one picture's map from which bands pay."""

BAND = 12 << 20
"""Bytes of a band: what it passes through is short of the whole map's memory, and each call still has enough to do."""

LARGEST = 4 << 20
"""Numbers of a float32 kernel up to which `convolve_doubled` may keep sums of them, 16 / 9 as many, for small maps."""

_HALVED = WeakIdKeyDictionary()
"""What `_halved` made of a weight."""

Rows = Callable[[int, int], Tensor]
"""Rows first to last (left out) of a map of one picture, (1, C, last - first, w)."""


def pay(x: Tensor, *layers: nn.Module, scale: int = 1) -> bool:
    """True where a map (so many times as large in the end) is large, convolutions are packed, norms fused, nobody
    records and no layer is watched.
    """
    if x[0].numel() * x.element_size() * scale**2 < SMALLEST or not _free(x):
        return False
    return all(_plain(each, x) for each in layers) and x.is_contiguous(memory_format=torch.channels_last)


def doubling_pays(x: Tensor, conv: Conv2d) -> bool:
    """True where `convolve_doubled` is faster: what `pay` says for a large map, and in float32 for small maps too."""
    may = x.dtype == torch.float32 and _free(x) and _plain(conv, x)
    return (may and conv.weight.numel() <= LARGEST) or pay(x, conv, scale=2)


def _free(x: Tensor) -> bool:
    """True for a map on a CPU that nobody wraps, casts or records."""
    if x.device.type != "cpu" or has_torch_function((x,)) or torch.is_autocast_enabled("cpu"):
        return False
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing())


def _plain(layer: nn.Module, x: Tensor) -> bool:
    """A layer that is what it seems: nothing replaced its call, nothing listens, a 3x3 convolution is packed."""
    if "forward" in layer.__dict__ or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    if not isinstance(layer, Conv2d):
        return getattr(layer, "fused", False) and activation.supported(layer, x)
    weight = layer.weight
    if not weight.is_mkldnn or not weight.is_floating_point():
        return False
    return layer.kernel_size == (3, 3) and layer.padding == (1, 1) and layer.stride == (1, 1)


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
    """The same as `conv(F.interpolate(x, scale_factor=2))`, with 4/9 of the products.

    Of a doubled map's nine neighbours of a pixel there are only four different ones: each of the four pixels that one
    becomes has its own 2x2 kernel, whose values are sums of the 3x3 one's.
    """
    made, halved = _empty(x, conv.out_channels, 2), _halved(conv)
    # of large maps one picture at a time
    together = max(BAND // (made[0].numel() * made.element_size()), 1)
    for pictures, answers in zip(x.split(together), made.split(together), strict=True):
        for first, last in _bands(answers[:1], 2):
            _scatter(halved(_with_neighbours(pictures, first, last)), answers[:, :, 2 * first : 2 * last])
    return made


def _convolve(norm: nn.GroupNorm, conv: Conv2d, x: Tensor, answer: Tensor, plus: Rows | None) -> None:
    """One picture; `answer` may be x: a row is written after both its neighbours were read."""
    activate, height, bands = Activation.of(norm, x), x.shape[2], list(_bands(x))
    rows = bands[0][1]
    lines = _lines(x, rows + 2)  # a band's, and a neighbour on each side
    lines[:, :, 0] = 0
    activate(x[:, :, :1], lines[:, :, 1:2])
    for first, last in bands:
        if first:
            lines[:, :, :2] = lines[:, :, rows : rows + 2]
        below = x[:, :, first + 1 : last + 1]
        activate(below, lines[:, :, 2 : 2 + below.shape[2]])
        if last == height:
            lines[:, :, last - first + 1] = 0
        some = lines[:, :, : last - first + 2]
        answer[:, :, first:last] = conv.within(some, None if plus is None else plus(first, last))


def _halved(conv: Conv2d) -> Conv2d:
    """The four kernels of `convolve_doubled` as one convolution (C, h, w) to (4 C', h - 1, w + 1), made once."""
    made = _HALVED.get(conv.weight)
    if made is None:
        made = Conv2d(conv.in_channels, 4 * conv.out_channels, 2, padding=(0, 1), device="meta")
        made.weight = nn.Parameter(_sums(dense(conv.weight)).to(conv.weight.dtype), requires_grad=False)
        made.pack()
        _HALVED[conv.weight] = made
    made.bias = None if conv.bias is None else nn.Parameter(conv.bias.repeat(4), requires_grad=False)
    return made


def _sums(weight: Tensor) -> Tensor:
    """3x3 kernels (C', C, 3, 3) as those of even and odd rows, each of even and odd columns, (4 C', C, 2, 2)."""
    w = weight.float()
    rows = [
        torch.stack([w[:, :, 0], w[:, :, 1] + w[:, :, 2]], 2),
        torch.stack([w[:, :, 0] + w[:, :, 1], w[:, :, 2]], 2),
    ]
    return torch.cat(
        [
            torch.stack(pair, 3)
            for r in rows
            for pair in ((r[..., 0], r[..., 1] + r[..., 2]), (r[..., 0] + r[..., 1], r[..., 2]))
        ]
    )


def _scatter(four: Tensor, answer: Tensor) -> None:
    """Answers of the four kernels (B, 4 C, n + 1, w + 1) to their places in (B, C, 2 n, 2 w)."""
    channels, height, width = answer.shape[1], answer.shape[2] // 2, answer.shape[3] // 2
    four = four.contiguous(memory_format=torch.channels_last)
    picture, _, row, column = four.stride()
    # the kernels of odd rows lie two further on, those of odd columns one, and each begins a pixel later
    strides = picture, row, row + 2 * channels, column, column + channels, 1
    sizes = len(four), height, 2, width, 2, channels
    places = answer.permute(0, 2, 3, 1).unflatten(1, (height, 2)).unflatten(3, (width, 2))
    places.copy_(four.as_strided(sizes, strides, four.storage_offset()))


def _with_neighbours(x: Tensor, first: int, last: int) -> Tensor:
    """Rows first - 1 to last of a map, zeros outside it."""
    above, below = int(first == 0), int(last == x.shape[2])
    some = x[:, :, max(first - 1, 0) : last + 1]
    return F.pad(some, (0, 0, above, below)) if above or below else some


def _bands(x: Tensor, scale: int = 1) -> Iterator[tuple[int, int]]:
    """First and last (left out) rows of each band of x, counted in a map that is so many times smaller."""
    height = x.shape[2] // scale
    rows = max(BAND * height // (x.numel() * x.element_size()), 2)
    return pairwise([*range(0, height, rows), height])


def _empty(x: Tensor, channels: int, scale: int) -> Tensor:
    batch, _, height, width = x.shape
    sizes = batch, channels, scale * height, scale * width
    return torch.empty(sizes, dtype=x.dtype, memory_format=torch.channels_last)


def _lines(x: Tensor, rows: int) -> Tensor:
    return torch.empty((1, x.shape[1], rows, x.shape[3]), dtype=x.dtype, memory_format=torch.channels_last)
