"""The way down that U-Nets and ControlNets share, and the blocks that both are made of.

Module names are the keys of diffusers' `UNet2DConditionModel`, so published weights load without a map.
Shapes: B batch, C channels, h and w of the latents, M words of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fromnoise.models.config import Config
from fromnoise.models.extras import Extras
from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.embedding import TextEmbedding, TimestepEmbedding, guidance_sinusoids, sinusoids
from fromnoise.nn.resnet import Downsample, ResnetBlock, Upsample


@dataclass(frozen=True)
class TrunkConfig(Config):
    """The fields that a U-Net's and a ControlNet's `config.json` share; lists count levels from the finest.

    `attention_head_dim` is the number of heads, whatever its name says.
    """

    in_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    layers_per_block: int = 2
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8
    cross_attention_dim: int = 768
    use_linear_projection: bool = False
    upcast_attention: bool | None = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    addition_embed_type: str | None = None
    addition_embed_type_num_heads: int = 64
    addition_time_embed_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("silu",),
        "downsample_padding": (1,),
        "mid_block_scale_factor": (1,),
        "mid_block_type": ("UNetMidBlock2DCrossAttn",),
        "resnet_time_scale_shift": ("default",),
    }
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "addition_embed_type": (None, "text", "text_time"),
    }

    def heads(self, level: int) -> int:
        """The number of attention heads at a level."""
        return _at(self.attention_head_dim, level)

    def depth(self, level: int) -> int:
        """How many transformer blocks follow each other at a level."""
        return _at(self.transformer_layers_per_block, level)

    @property
    def finest_attention(self) -> int | None:
        """The finest level that attends, which has the most tokens; None where none does."""
        return next((level for level, kind in enumerate(self.down_block_types) if "CrossAttn" in kind), None)

    @property
    def time_channels(self) -> int:
        """Width of the embedded time."""
        return 4 * self.block_out_channels[0]


def _at(value: int | tuple[int, ...], level: int) -> int:
    return value if isinstance(value, int) else value[level]


def _resnet(config: TrunkConfig, in_channels: int, out_channels: int) -> ResnetBlock:
    return ResnetBlock(in_channels, out_channels, config.norm_num_groups, config.norm_eps, config.time_channels)


def _transformer(config: TrunkConfig, channels: int, level: int) -> SpatialTransformer:
    return SpatialTransformer(
        channels,
        config.heads(level),
        config.cross_attention_dim,
        config.norm_num_groups,
        config.depth(level),
        linear=config.use_linear_projection,
        upcast=bool(config.upcast_attention),
    )


class Block(nn.Module):
    """Residual blocks, each followed by a transformer where the level attends to the words."""

    def __init__(self, config: TrunkConfig, widths: list[tuple[int, int]], level: int, attends: bool) -> None:
        super().__init__()
        self.merges = level == config.finest_attention
        self.resnets = nn.ModuleList(_resnet(config, *pair) for pair in widths)
        self.attentions = nn.ModuleList(_transformer(config, out, level) for _, out in widths if attends)

    def layer(self, index: int, x: Tensor, time: Tensor, words: Tensor, merge: float = 0.0) -> Tensor:
        """Residual block `index` and its transformer, which merges tokens where it has the most of them."""
        x = self.resnets[index](x, time)
        if not len(self.attentions):
            return x
        return self.attentions[index](x, words, merge=merge if self.merges else 0.0)


class DownBlock(Block):
    """One level on the way down; every map it makes is kept for the way up."""

    def __init__(self, config: TrunkConfig, level: int) -> None:
        widths = config.block_out_channels
        before, here = widths[max(level - 1, 0)], widths[level]
        pairs = [(before, here)] + [(here, here)] * (config.layers_per_block - 1)
        super().__init__(config, pairs, level, "CrossAttn" in config.down_block_types[level])
        self.downsamplers = nn.ModuleList([Downsample(here)] if level < len(widths) - 1 else [])

    def forward(self, x: Tensor, time: Tensor, words: Tensor, merge: float = 0.0) -> list[Tensor]:
        """The maps made at this level, the last of them the one to go on with."""
        made = self.layers(len(self.resnets), x, time, words, merge)
        x = made[-1]
        for downsample in self.downsamplers:
            made.append(downsample(x))
        return made

    def layers(self, count: int, x: Tensor, time: Tensor, words: Tensor, merge: float = 0.0) -> list[Tensor]:
        """The maps that the first `count` layers make."""
        made: list[Tensor] = []
        for index in range(count):
            x = self.layer(index, x, time, words, merge)
            made.append(x)
        return made


class MidBlock(Block):
    """The coarsest level: residual block, transformer, residual block."""

    def __init__(self, config: TrunkConfig) -> None:
        width, level = config.block_out_channels[-1], len(config.block_out_channels) - 1
        super().__init__(config, [(width, width)], level, attends=True)
        self.resnets.append(_resnet(config, width, width))

    def forward(self, x: Tensor, time: Tensor, words: Tensor, perturbed: Tensor | None = None) -> Tensor:
        """(B, C, h, w) to the same shape; in `perturbed` rows self-attention is the identity."""
        x = self.attentions[0](self.resnets[0](x, time), words, perturbed)
        return self.resnets[1](x, time)


class UpBlock(Block):
    """One level on the way up; every residual block also sees a map kept on the way down."""

    def __init__(self, config: TrunkConfig, level: int, attends: bool) -> None:
        widths = config.block_out_channels
        here, below = widths[level], widths[min(level + 1, len(widths) - 1)]
        skips = [here] * config.layers_per_block + [widths[max(level - 1, 0)]]
        inputs = [below] + [here] * config.layers_per_block
        pairs = [(one + two, here) for one, two in zip(inputs, skips, strict=True)]
        super().__init__(config, pairs, level, attends)
        self.upsamplers = nn.ModuleList([Upsample(here)] if level > 0 else [])

    def forward(self, x: Tensor, kept: list[Tensor], time: Tensor, words: Tensor, merge: float = 0.0) -> Tensor:
        """Takes its share from the end of `kept`; the size of the next one there is the size to grow to."""
        x = self.layers(range(len(self.resnets)), x, kept, time, words, merge)
        for upsample in self.upsamplers:
            x = upsample(x, kept[-1].shape[-2:])
        return x

    def layers(
        self, which: range, x: Tensor, kept: list[Tensor], time: Tensor, words: Tensor, merge: float = 0.0
    ) -> Tensor:
        """Some of its layers, each with the last of `kept`."""
        for index in which:
            x = self.layer(index, torch.cat([x, kept.pop()], dim=1), time, words, merge)
        return x


class Trunk(nn.Module):
    """From latents and time to the coarsest level: what a U-Net and a ControlNet have in common."""

    def __init__(self, config: TrunkConfig, guidance_channels: int | None = None) -> None:
        super().__init__()
        self._trunk, self._guidance_channels = config, guidance_channels
        widths, time = config.block_out_channels, config.time_channels
        self.conv_in = Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], time, guidance_channels)
        if config.addition_embed_type == "text":
            self.add_embedding = TextEmbedding(config.cross_attention_dim, time, config.addition_embed_type_num_heads)
        elif config.addition_embed_type is not None:
            assert config.projection_class_embeddings_input_dim is not None
            self.add_embedding = TimestepEmbedding(config.projection_class_embeddings_input_dim, time)
        self.down_blocks = nn.ModuleList(DownBlock(config, level) for level in range(len(widths)))
        self.mid_block = MidBlock(config)

    def embed(self, time: Tensor, words: Tensor, extras: Extras) -> Tensor:
        """Timesteps (B,) and what else speaks to all of a map, embedded as (B, time_channels)."""
        config, dtype = self._trunk, self.conv_in.weight.dtype
        waves = sinusoids(time, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
        embedded = self.time_embedding(waves.to(dtype), self._guidance(extras))
        if config.addition_embed_type is None:
            return embedded
        if config.addition_embed_type == "text":
            return embedded + self.add_embedding(words)
        return embedded + self.add_embedding(self._addition(extras).to(dtype))

    def _guidance(self, extras: Extras) -> Tensor | None:
        if extras.guidance is None or self._guidance_channels is None:
            return None
        return guidance_sinusoids(extras.guidance, self._guidance_channels).to(self.conv_in.weight.dtype)

    def _addition(self, extras: Extras) -> Tensor:
        """SDXL's pooled text and embedded sizes side by side (Podell et al. 2023, sections 2.1 and 2.2)."""
        config, pooled, sizes = self._trunk, extras.pooled, extras.time_ids
        if pooled is None or sizes is None or config.addition_time_embed_dim is None:
            raise ValueError("this network needs extras.pooled and extras.time_ids")
        flip, shift = config.flip_sin_to_cos, config.freq_shift
        waves = sinusoids(sizes.flatten(), config.addition_time_embed_dim, flip, shift)
        return torch.cat([pooled, waves.unflatten(0, sizes.shape).flatten(1).to(pooled.dtype)], dim=-1)

    def descend(self, x: Tensor, embedded: Tensor, words: Tensor, merge: float = 0.0) -> list[Tensor]:
        """Every map made on the way down, the first of them `x`."""
        kept = [x]
        for block in self.down_blocks:
            kept += block(kept[-1], embedded, words, merge)
        return kept
