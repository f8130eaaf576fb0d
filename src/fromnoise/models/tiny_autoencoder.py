"""The tiny autoencoder for previews and drafts: TAESD and TAESDXL (Ollin Boer Bohan, github.com/madebyollin/taesd).

Module names are the keys of diffusers' `AutoencoderTiny`. Shapes: B batch, H and W of the picture, h = H / factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import Config
from fromnoise.nn import bands
from fromnoise.nn.convolution import Conv2d


@dataclass(frozen=True)
class TinyAutoencoderConfig(Config):
    """Fields of a tiny autoencoder's `config.json`; the lists count levels in the order that they run."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    scaling_factor: float = 1.0

    FIXED: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "act_fn": ("relu",),
        "upsample_fn": ("nearest",),
        "upsampling_scaling_factor": (2,),
        "shift_factor": (0.0,),
    }
    IGNORED: ClassVar[frozenset[str]] = frozenset(
        {"force_upcast", "latent_magnitude", "latent_shift", "block_out_channels"}
    )

    @property
    def factor(self) -> int:
        """How many pixels a latent is wide."""
        return 2 ** (len(self.num_decoder_blocks) - 1)


class Block(nn.Module):
    """Three convolutions and the input added, ReLU between and after."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        convs = [Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(inplace=True), convs[1], nn.ReLU(inplace=True), convs[2])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        return self.conv(x).add_(x).relu_()


class Doubled(Conv2d):
    """A convolution of the map doubled by nearest neighbour, (B, channels, h, w) to (B, made, 2h, 2w)."""

    def __init__(self, channels: int, made: int) -> None:
        super().__init__(channels, made, 3, padding=1, bias=False)

    def forward(self, input: Tensor, plus: Tensor | None = None) -> Tensor:
        """The same, and `plus` added."""
        if plus is None and bands.doubling_pays(input, self):
            return bands.convolve_doubled(self, input)
        return super().forward(F.interpolate(input, scale_factor=2.0), plus)


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] to latents (B, latent_channels, h, w)."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        widths = config.encoder_block_out_channels
        layers: list[nn.Module] = [Conv2d(config.in_channels, widths[0], 3, padding=1)]
        for level, (width, blocks) in enumerate(zip(widths, config.num_encoder_blocks, strict=True)):
            if level > 0:
                layers.append(Conv2d(width, width, 3, padding=1, stride=2, bias=False))
            layers += [Block(width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers, Conv2d(widths[-1], config.latent_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, latent_channels, h, w)."""
        return self.layers(x)


class Decoder(nn.Module):
    """Latents (B, latent_channels, h, w) to pictures (B, 3, H, W) in about [0, 1]."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        widths, last = config.decoder_block_out_channels, len(config.num_decoder_blocks) - 1
        layers: list[nn.Module] = [Conv2d(config.latent_channels, widths[0], 3, padding=1), nn.ReLU()]
        for level, (width, blocks) in enumerate(zip(widths, config.num_decoder_blocks, strict=True)):
            layers += [Block(width) for _ in range(blocks)]
            if level < last:
                layers += [nn.Identity(), Doubled(width, widths[level + 1])]  # the doubling is a layer of its own there
        self.layers = nn.Sequential(*layers, Conv2d(widths[-1], config.out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, latent_channels, h, w) to (B, 3, H, W); latents are squashed softly into [-3, 3] first."""
        return self.layers(torch.tanh(x / 3) * 3)


class TinyAutoencoder(nn.Module):
    """A drop-in for `Autoencoder` where speed matters more: the network works in [0, 1], its methods in [-1, 1]."""

    def __init__(self, config: TinyAutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def encode(self, pictures: Tensor, noise: Tensor | None = None) -> Tensor:
        """Latents (B, latent_channels, h, w) for the denoiser. They have no variance, so `noise` changes nothing."""
        del noise
        return self.encoder((pictures + 1) / 2) * self.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W), about [-1, 1] and not clamped, from the denoiser's latents."""
        return self.decoder(latents / self.config.scaling_factor) * 2 - 1
