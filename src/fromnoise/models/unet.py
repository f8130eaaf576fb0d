"""The denoiser's network: a U-Net with cross-attention to the words (Rombach et al. 2022).

Module names are the keys of diffusers' `UNet2DConditionModel`, so published weights load without a map.
Shapes: B batch, C channels, h and w of the latents, M words of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import Config
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.embedding import TimestepEmbedding, sinusoids
from fromnoise.nn.norm import GroupNorm
from fromnoise.nn.resnet import Downsample, ResnetBlock, Upsample


@dataclass(frozen=True)
class UNetConfig(Config):
    """Fields of `unet/config.json`. `attention_head_dim` is the number of heads, whatever its name says."""

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    layers_per_block: int = 2
    attention_head_dim: int | tuple[int, ...] = 8
    cross_attention_dim: int = 768
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("silu",),
        "center_input_sample": (False,),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "conv_in_kernel": (3,),
        "conv_out_kernel": (3,),
        "resnet_time_scale_shift": ("default",),
        "resnet_skip_time_act": (False,),
        "resnet_out_scale_factor": (1.0,),
        "time_embedding_type": ("positional",),
        "attention_type": ("default",),
        "transformer_layers_per_block": (1,),
        "cross_attention_norm": (None,),
        "dropout": (0.0,),
    }
    IGNORED: ClassVar[frozenset[str]] = frozenset({"upcast_attention", "addition_embed_type_num_heads"})

    def heads(self, level: int) -> int:
        """The number of attention heads at a level, counted from the finest."""
        heads = self.attention_head_dim
        return heads if isinstance(heads, int) else heads[level]

    @property
    def time_channels(self) -> int:
        """Width of the embedded time."""
        return 4 * self.block_out_channels[0]


def _resnet(config: UNetConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, config.norm_num_groups, config.norm_eps, config.time_channels)


def _transformer(config: UNetConfig, channels: int, level: int) -> SpatialTransformer:
    heads, words = config.heads(level), config.cross_attention_dim
    return SpatialTransformer(channels, heads, words, config.norm_num_groups, linear=config.use_linear_projection)


class Block(nn.Module):
    """Residual blocks, each followed by a transformer where the level attends to the words."""

    def __init__(self, config: UNetConfig, widths: list[tuple[int, int]], level: int, attends: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_resnet(config, *pair) for pair in widths)
        self.attentions = nn.ModuleList(_transformer(config, out, level) for _, out in widths if attends)

    def layer(self, index: int, x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        """Residual block `index` and its transformer."""
        x = self.resnets[index](x, time)
        return self.attentions[index](x, words) if len(self.attentions) else x


class DownBlock(Block):
    """One level on the way down; every map it makes is kept for the way up."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        widths = config.block_out_channels
        before, here = widths[max(level - 1, 0)], widths[level]
        pairs = [(before, here)] + [(here, here)] * (config.layers_per_block - 1)
        super().__init__(config, pairs, level, "CrossAttn" in config.down_block_types[level])
        self.downsamplers = nn.ModuleList([Downsample(here)] if level < len(widths) - 1 else [])

    def forward(self, x: Tensor, time: Tensor, words: Tensor) -> list[Tensor]:
        """The maps made at this level, the last of them the one to go on with."""
        made: list[Tensor] = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, time, words)
            made.append(x)
        for downsample in self.downsamplers:
            made.append(downsample(x))
        return made


class MidBlock(Block):
    """The coarsest level: residual block, transformer, residual block."""

    def __init__(self, config: UNetConfig) -> None:
        width, level = config.block_out_channels[-1], len(config.block_out_channels) - 1
        super().__init__(config, [(width, width)], level, attends=True)
        self.resnets.append(_resnet(config, width, width))

    def forward(self, x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        return self.resnets[1](self.layer(0, x, time, words), time)


class UpBlock(Block):
    """One level on the way up; every residual block also sees a map kept on the way down."""

    def __init__(self, config: UNetConfig, level: int) -> None:
        widths = config.block_out_channels
        here, below = widths[level], widths[min(level + 1, len(widths) - 1)]
        skips = [here] * config.layers_per_block + [widths[max(level - 1, 0)]]
        inputs = [below] + [here] * config.layers_per_block
        pairs = [(one + two, here) for one, two in zip(inputs, skips, strict=True)]
        super().__init__(config, pairs, level, "CrossAttn" in config.up_block_types[len(widths) - 1 - level])
        self.upsamplers = nn.ModuleList([Upsample(here)] if level > 0 else [])

    def forward(self, x: Tensor, kept: list[Tensor], time: Tensor, words: Tensor) -> Tensor:
        """Takes its share from the end of `kept`; the size of the next one there is the size to grow to."""
        for index in range(len(self.resnets)):
            x = self.layer(index, torch.cat([x, kept.pop()], dim=1), time, words)
        for upsample in self.upsamplers:
            x = upsample(x, kept[-1].shape[-2:])
        return x


class UNet(nn.Module):
    """Predicts the noise (or v) in latents, given the time and the words (Ho et al. 2020; Rombach et al. 2022)."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], config.time_channels)
        self.down_blocks = nn.ModuleList(DownBlock(config, level) for level in range(len(widths)))
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(UpBlock(config, level) for level in reversed(range(len(widths))))
        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[0], eps=config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor, words: Tensor) -> Tensor:
        """Latents (B, in_channels, h, w), timesteps (B,) in [0, 1000), words (B, M, C) to (B, out_channels, h, w)."""
        embedded = self._embed(time).to(x.dtype)
        x = self.conv_in(x)
        kept = [x]
        for block in self.down_blocks:
            kept += block(kept[-1], embedded, words)
        x = self.mid_block(kept[-1], embedded, words)
        for block in self.up_blocks:
            x = block(x, kept, embedded, words)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _embed(self, time: Tensor) -> Tensor:
        config = self.config
        waves = sinusoids(time, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
        return self.time_embedding(waves.to(self.conv_in.weight.dtype))
