"""ControlNet: a copy of a U-Net's way down that reads a picture and steers the U-Net with it (Zhang et al. 2023).

Module names are the keys of diffusers' `ControlNetModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.extras import NO_EXTRAS, Control, Extras
from fromnoise.models.unet_blocks import Trunk, TrunkConfig
from fromnoise.nn.convolution import Conv2d


@dataclass(frozen=True)
class ControlNetConfig(TrunkConfig):
    """Fields of a ControlNet's `config.json`; `global_pool_conditions` is the shuffle network's."""

    conditioning_channels: int = 3
    conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
    global_pool_conditions: bool = False

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **TrunkConfig.FIXED,
        "controlnet_conditioning_channel_order": ("rgb",),
    }


class HintEmbedding(nn.Module):
    """The picture that steers, made as small as the latents."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__()
        widths = config.conditioning_embedding_out_channels
        self.conv_in = Conv2d(config.conditioning_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for one, two in pairwise(widths):
            self.blocks.append(Conv2d(one, one, 3, padding=1))
            self.blocks.append(Conv2d(one, two, 3, padding=1, stride=2))
        self.conv_out = Conv2d(widths[-1], config.block_out_channels[0], 3, padding=1)

    def forward(self, hint: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, h, w)."""
        x = F.silu(self.conv_in(hint))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class ControlNet(Trunk):
    """Residuals for every map that the U-Net keeps, from latents, time, words and a picture."""

    def __init__(self, config: ControlNetConfig) -> None:
        super().__init__(config)
        self.config = config
        self.controlnet_cond_embedding = HintEmbedding(config)
        self.controlnet_down_blocks = nn.ModuleList(Conv2d(width, width, 1) for width in _kept_widths(config))
        width = config.block_out_channels[-1]
        self.controlnet_mid_block = Conv2d(width, width, 1)

    def forward(self, x: Tensor, time: Tensor, words: Tensor, hint: Tensor, extras: Extras = NO_EXTRAS) -> Control:
        """The U-Net's own inputs and a picture `hint` (B or 1, 3, H, W) in [0, 1], as large as what is drawn."""
        embedded = self.embed(time, words, extras).to(x.dtype)
        kept = self.descend(self.conv_in(x) + self.controlnet_cond_embedding(hint), embedded, words)
        mid = self.controlnet_mid_block(self.mid_block(kept[-1], embedded, words))
        down = [conv(each) for conv, each in zip(self.controlnet_down_blocks, kept, strict=True)]
        if self.config.global_pool_conditions:
            mid, *down = (each.mean((2, 3), keepdim=True) for each in (mid, *down))
        return Control(tuple(down), mid)


def _kept_widths(config: ControlNetConfig) -> list[int]:
    """Channels of every map made on the way down: conv_in's, each residual block's, each downsampling's."""
    *inner, last = config.block_out_channels
    made = [width for width in inner for _ in range(config.layers_per_block + 1)]
    return [config.block_out_channels[0], *made, *[last] * config.layers_per_block]
