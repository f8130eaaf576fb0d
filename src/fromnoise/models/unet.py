"""The denoiser's network: a U-Net with cross-attention to the words (Rombach et al. 2022; SDXL: Podell et al. 2023).

Module names are the keys of diffusers' `UNet2DConditionModel`, so published weights load without a map.
Shapes: B batch, C channels, h and w of the latents, M words of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from fromnoise.models.extras import NO_EXTRAS, Extras, Reuse
from fromnoise.models.unet_blocks import DownBlock, Trunk, TrunkConfig, UpBlock
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.norm import GroupNorm, silu_of


@dataclass(frozen=True)
class UNetConfig(TrunkConfig):
    """Fields of `unet/config.json`. `time_cond_proj_dim` is the width of an LCM's embedded guidance scale."""

    sample_size: int = 64
    out_channels: int = 4
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    time_cond_proj_dim: int | None = None

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **TrunkConfig.FIXED,
        "center_input_sample": (False,),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1.0,),
        "time_embedding_type": ("positional",),
        "attention_type": ("default",),
        "cross_attention_norm": (None,),
        "dropout": (0.0,),
    }
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **TrunkConfig.CHOICES,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }


class UNet(Trunk):
    """Predicts the noise (or v) in latents, given the time and the words (Ho et al. 2020; Rombach et al. 2022)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, config.time_cond_proj_dim)
        self.config = config
        width = config.block_out_channels[0]
        attends = ["CrossAttn" in kind for kind in config.up_block_types[::-1]]
        levels = reversed(range(len(config.block_out_channels)))
        self.up_blocks = nn.ModuleList(UpBlock(config, level, attends[level]) for level in levels)
        self.conv_norm_out = GroupNorm(config.norm_num_groups, width, eps=config.norm_eps)
        self.conv_out = Conv2d(width, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, words: Tensor, extras: Extras = NO_EXTRAS) -> Tensor:
        """Latents (B, in_channels, h, w), timesteps (B,) in [0, 1000), words (B, M, C) to (B, out_channels, h, w).

        SDXL's networks need `extras.pooled` and `extras.time_ids`; ValueError without.
        """
        embedded = self.embed(time, words, extras).to(x.dtype)
        x = self.conv_in(x)
        outermost = self.up_blocks[-1]
        assert isinstance(outermost, UpBlock)
        layers = range(len(outermost.resnets))
        first = len(layers) - self._outer(extras.reuse)
        deep = None if extras.reuse is None else extras.reuse.take(len(x))
        if deep is None:
            deep, kept = self._deep(x, embedded, words, extras)
            deep = outermost.layers(layers[:first], deep, kept, embedded, words, extras.merge)
            if extras.reuse is not None:
                extras.reuse.keep(deep)
        else:
            kept = self._shallow(x, embedded, words, extras)
        x = outermost.layers(layers[first:], deep, kept, embedded, words, extras.merge)
        return self.conv_out(silu_of(self.conv_norm_out, x))

    def _outer(self, reuse: Reuse | None) -> int:
        """How many of the outermost layers are computed at every call; at most those of the finest level."""
        return 0 if reuse is None else min(reuse.layers, self.config.layers_per_block + 1)

    def _deep(self, x: Tensor, embedded: Tensor, words: Tensor, extras: Extras) -> tuple[Tensor, list[Tensor]]:
        """All the way down, through the middle and up to the finest level, with the maps still to be joined there."""
        kept = self.descend(x, embedded, words, extras.merge)
        x = self.mid_block(kept[-1], embedded, words, extras.perturbed)
        if extras.control is not None:
            x, kept = x + extras.control.mid, _controlled(kept, extras.control.down)
        for block in self.up_blocks[:-1]:
            x = block(x, kept, embedded, words, extras.merge)
        return x, kept

    def _shallow(self, x: Tensor, embedded: Tensor, words: Tensor, extras: Extras) -> list[Tensor]:
        """The first maps of the way down, as many as the outermost layers join."""
        count, finest = self._outer(extras.reuse), self.down_blocks[0]
        assert isinstance(finest, DownBlock)
        kept = [x, *finest.layers(count - 1, x, embedded, words, extras.merge)]
        return kept if extras.control is None else _controlled(kept, extras.control.down[:count])


def _controlled(kept: Sequence[Tensor], added: Sequence[Tensor]) -> list[Tensor]:
    return [one + two for one, two in zip(kept, added, strict=True)]
