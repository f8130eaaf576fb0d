"""Residual blocks and resampling of feature maps (B, C, h, w)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.nn import bands
from fromnoise.nn.convolution import Conv2d, ready
from fromnoise.nn.norm import GroupNorm


class ResnetBlock(nn.Module):
    """Norm, SiLU, convolve, twice, and add (Ho et al. 2020, appendix B); the time enters between the two.

    `time_channels` None makes the block of an autoencoder, which knows no time.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, eps: float, time_channels: int | None = None
    ) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = Conv2d(in_channels, out_channels, 1)
        self._changes_width = in_channels != out_channels

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """(B, in, h, w) and an embedded time (B, time_channels) to (B, out, h, w)."""
        if bands.pay(x, self.norm1, self.conv1, self.norm2, self.conv2):
            return self._in_bands(x, time)
        hidden = self.conv1(ready(self.conv1, self.norm1, x))
        shift = None if time is None else self.time_emb_proj(F.silu(time))
        hidden = ready(self.conv2, self.norm2, hidden, shift)  # what it was is not kept while the shortcut is made
        return self.conv2(hidden, plus=self.conv_shortcut(x) if self._changes_width else x)

    def _in_bands(self, x: Tensor, time: Tensor | None) -> Tensor:
        """The same for a map that is too large for a cache."""
        hidden = bands.convolve(self.norm1, self.conv1, x)
        if time is not None:
            hidden += self.time_emb_proj(F.silu(time))[:, :, None, None]
        through = self.conv_shortcut if self._changes_width else None
        return bands.convolve_over(self.norm2, self.conv2, hidden, plus=x, through=through)


class Downsample(nn.Module):
    """Halve a map with a strided convolution; `padding` 0 pads right and below only, as the VAE does."""

    def __init__(self, channels: int, padding: int = 1) -> None:
        super().__init__()
        self.padding = padding
        self.conv = Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C, h/2, w/2)."""
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double a map by nearest neighbour, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, h, w) to (B, C, 2h, 2w), or to `size` where halving had rounded up."""
        if size in (None, (2 * x.shape[2], 2 * x.shape[3])) and bands.doubling_pays(x, self.conv):
            return bands.convolve_doubled(self.conv, x)
        wider = F.interpolate(x, size=size) if size else F.interpolate(x, scale_factor=2.0)
        return self.conv(wider)
