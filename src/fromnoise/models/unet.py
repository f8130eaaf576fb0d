"""The denoiser's network: a U-Net with cross-attention to the words (Rombach et al. 2022; SDXL: Podell et al. 2023).

Module names are the keys of diffusers' `UNet2DConditionModel`, so published weights load without a map.
Shapes: B batch, C channels, h and w of the latents, M words of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.extras import NO_EXTRAS, Control, Extras
from fromnoise.models.unet_blocks import Trunk, TrunkConfig, UpBlock
from fromnoise.nn.norm import GroupNorm


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
        self.conv_out = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, words: Tensor, extras: Extras = NO_EXTRAS) -> Tensor:
        """Latents (B, in_channels, h, w), timesteps (B,) in [0, 1000), words (B, M, C) to (B, out_channels, h, w).

        SDXL's networks need `extras.pooled` and `extras.time_ids`; ValueError without.
        """
        embedded = self.embed(time, extras).to(x.dtype)
        kept = self.descend(self.conv_in(x), embedded, words)
        x = self.mid_block(kept[-1], embedded, words, extras.perturbed)
        if extras.control is not None:
            x, kept = _controlled(x, kept, extras.control)
        for block in self.up_blocks:
            x = block(x, kept, embedded, words)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def _controlled(x: Tensor, kept: list[Tensor], control: Control) -> tuple[Tensor, list[Tensor]]:
    return x + control.mid, [one + two for one, two in zip(kept, control.down, strict=True)]
