"""The autoencoder: pictures to latents and back (Kingma & Welling 2013; Rombach et al. 2022, section 3.1).

Module names are the keys of diffusers' `AutoencoderKL`. Shapes: B batch, H and W of the picture, h = H / factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import Config
from fromnoise.nn import bands
from fromnoise.nn.convolution import Conv2d
from fromnoise.nn.norm import GroupNorm, silu_of
from fromnoise.nn.resnet import Downsample, ResnetBlock, Upsample
from fromnoise.runtime.memory import give_back

EPS = 1e-6


@dataclass(frozen=True)
class AutoencoderConfig(Config):
    """Fields of `vae/config.json`; `force_upcast` asks for float32 where the rest runs in half precision."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    sample_size: int = 512
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    force_upcast: bool = True

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {"act_fn": ("silu",)}
    CHOICES: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "down_block_types": ("DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
    }

    @property
    def factor(self) -> int:
        """How many pixels a latent is wide."""
        return 2 ** (len(self.block_out_channels) - 1)

    def to_json(self) -> dict[str, Any]:
        """Every field, with the block types that diffusers wants spelt out."""
        levels = len(self.block_out_channels)
        kinds = {"down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels}
        return {**super().to_json(), **kinds}


@dataclass(frozen=True)
class Gaussian:
    """The encoder's answer: a normal distribution over latents, each (B, latent_channels, h, w)."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Mean plus deviation times unit `noise` (the reparameterisation trick)."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Tensor:
        """KL divergence from the unit normal, summed over a picture's latents: (B,) in nats."""
        terms = self.mean**2 + self.log_variance.exp() - 1.0 - self.log_variance
        return 0.5 * terms.flatten(1).sum(1)


class SelfAttention(nn.Module):
    """One head of attention over all pixels of a map, with its own norm."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = GroupNorm(groups, channels, eps=EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Identity()])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (project(tokens)[:, None] for project in (self.to_q, self.to_k, self.to_v))
        mixed = self.to_out[0](F.scaled_dot_product_attention(q, k, v)[:, 0])
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[-2:])


class Block(nn.Module):
    """Residual blocks at one level, then down- or upsampling where another level follows."""

    def __init__(self, config: AutoencoderConfig, widths: list[int], resample: nn.Module | None = None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(one, two, config.norm_num_groups, EPS) for one, two in pairwise(widths)
        )
        self.downsamplers = nn.ModuleList([resample] if isinstance(resample, Downsample) else [])
        self.upsamplers = nn.ModuleList([resample] if isinstance(resample, Upsample) else [])

    def layers(self) -> Iterator[nn.Module]:
        """What a map passes through, in order."""
        return chain(self.resnets, self.downsamplers, self.upsamplers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C', h', w')."""
        for layer in self.layers():
            x = layer(x)
        return x


class MidBlock(nn.Module):
    """The coarsest level: residual block, attention over all pixels, residual block."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        width, groups = config.block_out_channels[-1], config.norm_num_groups
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups, EPS) for _ in range(2))
        attends = config.mid_block_add_attention
        self.attentions = nn.ModuleList([SelfAttention(width, groups)] if attends else [])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        for layer in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) to mean and log-variance of latents, (B, 2 * latent_channels, h, w)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = Conv2d(config.in_channels, widths[0], 3, padding=1)
        before = (widths[0], *widths)
        self.down_blocks = nn.ModuleList(
            Block(
                config,
                [before[level]] + [width] * config.layers_per_block,
                Downsample(width, padding=0) if level < len(widths) - 1 else None,
            )
            for level, width in enumerate(widths)
        )
        self.mid_block = MidBlock(config)
        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[-1], eps=EPS)
        self.conv_out = Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 2 * latent_channels, h, w)."""
        return self.coarse(self.fine(x))

    def fine(self, x: Tensor) -> Tensor:
        """The levels that shrink: (B, 3, H, W) to (B, C, h, w)."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return x

    def coarse(self, x: Tensor) -> Tensor:
        """The rest, as small as the latents: (B, C, h, w) to (B, 2 * latent_channels, h, w)."""
        return self.conv_out(silu_of(self.conv_norm_out, self.mid_block(x)))


class Decoder(nn.Module):
    """Latents (B, latent_channels, h, w) to pictures (B, 3, H, W)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MidBlock(config)
        before = (widths[0], *widths)
        self.up_blocks = nn.ModuleList(
            Block(
                config,
                [before[level]] + [width] * (config.layers_per_block + 1),
                Upsample(width) if level < len(widths) - 1 else None,
            )
            for level, width in enumerate(widths)
        )
        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[-1], eps=EPS)
        self.conv_out = Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, latent_channels, h, w) to (B, 3, H, W)."""
        return self.fine(self.coarse(x))

    def coarse(self, x: Tensor) -> Tensor:
        """What is as small as the latents: (B, latent_channels, h, w) to (B, C, h, w)."""
        return self.mid_block(self.conv_in(x))

    def fine(self, x: Tensor) -> Tensor:
        """The levels that grow: (B, C, h, w) to (B, 3, H, W)."""
        for block in self.up_blocks:
            for layer in cast(Block, block).layers():  # not `block(x)`, which would hold on to its input
                x = layer(x)
            if bands.pay(x):
                give_back()
        if bands.pay(x, self.conv_norm_out, self.conv_out):
            return bands.convolve(self.conv_norm_out, self.conv_out, x)
        return self.conv_out(silu_of(self.conv_norm_out, x))


class Autoencoder(nn.Module):
    """Pictures in [-1, 1] to latents that the denoiser works on, and back."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.quant_conv = Conv2d(2 * channels, 2 * channels, 1) if config.use_quant_conv else nn.Identity()
        self.post_quant_conv = Conv2d(channels, channels, 1) if config.use_post_quant_conv else nn.Identity()
        self.decoder = Decoder(config)

    def distribution(self, pictures: Tensor) -> Gaussian:
        """The latents' distribution before scaling, for pictures (B, 3, H, W) in [-1, 1]."""
        return self.gaussian(self.encoder.fine(pictures))

    def gaussian(self, features: Tensor) -> Gaussian:
        """The latents' distribution before scaling, for what `encoder.fine` makes of pictures."""
        mean, log_variance = self.quant_conv(self.encoder.coarse(features)).chunk(2, dim=1)
        return Gaussian(mean, log_variance.clamp(-30.0, 20.0))

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents (B, latent_channels, h, w) of about unit variance; the mean, or a sample when given unit noise."""
        latents = self.distribution(pictures)
        return (latents.mean if noise is None else latents.sample(noise)) * self.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), about [-1, 1] and not clamped, from what `encode` gives."""
        return self.decoder(self.post_quant_conv(latents / self.config.scaling_factor))

    def forward(self, pictures: Tensor, noise: Tensor) -> tuple[Tensor, Gaussian]:
        """The reconstruction of pictures and the distribution that it was sampled from, for training."""
        latents = self.distribution(pictures)
        return self.decoder(self.post_quant_conv(latents.sample(noise))), latents
