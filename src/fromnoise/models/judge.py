"""The judges: small picture encoders that say what a picture shows and in which style.

Two architectures, so that the judge of reported figures shares no weakness with the one that selects: a plain residual
network (He et al. 2016), and one whose last stage is a transformer over patches (Xiao et al. 2021, "Early convolutions
help transformers see better"). Shapes: B batch, s the side that pictures are read at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import Config


@dataclass(frozen=True)
class JudgeConfig(Config):
    """Fields of a judge's `config.json`; `side` is what pictures are shrunk to, `clusters` how many there are."""

    architecture: str = "residual"
    side: int = 64
    width: int = 32
    text_dim: int = 384
    clusters: int = 970
    styles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What a judge says to B pictures.

    `features` (B, F) are what it saw, `embedding` (B, text_dim) unit vectors in the space of concept vectors;
    `clusters` (B, clusters) and `styles` (B, styles) are logits.
    """

    features: Tensor
    embedding: Tensor
    clusters: Tensor
    styles: Tensor


class ResidualBlock(nn.Module):
    """Two convolutions and a sum; `stride` 2 halves the map, by averaging on the way around."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        around: list[nn.Module] = [nn.AvgPool2d(2)] if stride == 2 else []
        around += [nn.Conv2d(in_channels, out_channels, 1, bias=False)] if in_channels != out_channels else []
        self.shortcut = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) to (B, out, h / stride, w / stride)."""
        hidden = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(hidden + self.shortcut(x))


class TransformerBlock(nn.Module):
    """Every patch looks at every patch, then thinks for itself (Dosovitskiy et al. 2021, eqs. 2 and 3)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 3 * channels)
        self.fc2 = nn.Linear(3 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, patches, channels) to the same shape."""
        x = x + self.out(self.attend(self.norm1(x)))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    def attend(self, x: Tensor) -> Tensor:
        """Scaled dot-product attention, spelt out: for so few patches its gradient is much faster on a CPU."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3)
        return (weights @ v).transpose(1, 2).flatten(2)


def stem(width: int) -> nn.Sequential:
    """Pixels (B, 3, s, s) to a map (B, width, s / 2, s / 2)."""
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class ResidualEncoder(nn.Module):
    """Four stages of residual blocks; the second one's map gives the texture."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        w = config.width
        self.channels, self.textures = 8 * w, 4 * w
        self.near = nn.Sequential(stem(w), ResidualBlock(w, w), ResidualBlock(w, 2 * w, 2), ResidualBlock(2 * w, 2 * w))
        shapes = [(2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2)]
        self.far = nn.Sequential(*(ResidualBlock(*shape) for shape in shapes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, s, s) to features (B, channels) and (B, textures)."""
        near = self.near(x)
        return self.far(near).mean((2, 3)), texture(near)


class PatchEncoder(nn.Module):
    """Residual blocks down to patches of 8 pixels, then transformer blocks over them."""

    DEPTH, HEADS, PATCH = 3, 6, 8

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        w, across = config.width, config.side // self.PATCH
        self.channels, self.textures = 6 * w, 4 * w
        self.near = nn.Sequential(stem(w), ResidualBlock(w, w), ResidualBlock(w, 2 * w, 2))
        self.patch = nn.Sequential(ResidualBlock(2 * w, 4 * w, 2), nn.Conv2d(4 * w, self.channels, 1))
        self.place = nn.Parameter(torch.randn(1, self.channels, across, across) * 0.02)
        self.far = nn.Sequential(*(TransformerBlock(self.channels, self.HEADS) for _ in range(self.DEPTH)))
        self.norm = nn.LayerNorm(self.channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, s, s) to features (B, channels) and (B, textures); places are stretched for another side."""
        near = self.near(x)
        patches = self.patch(near)
        place = F.interpolate(self.place, size=patches.shape[2:], mode="bilinear")
        seen = self.far((patches + place).flatten(2).transpose(1, 2))
        return self.norm(seen).mean(1), texture(near)


def texture(near: Tensor) -> Tensor:
    """How much of each local pattern there is, and how unevenly: means and deviations of a map, (B, 2 C)."""
    return torch.cat([near.mean((2, 3)), near.flatten(2).std(2)], 1)


ENCODERS: dict[str, type[ResidualEncoder] | type[PatchEncoder]] = {"residual": ResidualEncoder, "patches": PatchEncoder}
"""Architectures by the name in the config."""


class Judge(nn.Module):
    """An encoder with three heads: beside texts, among clusters of concepts, among styles.

    A style lies in strokes and shades, which the last map has forgotten, so that its head sees textures as well.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ENCODERS[config.architecture](config)
        channels = self.encoder.channels
        self.text_head = nn.Linear(channels, config.text_dim)
        self.cluster_head = nn.Linear(channels, config.clusters)
        self.style_head = nn.Linear(channels + self.encoder.textures, len(config.styles))

    def forward(self, pictures: Tensor) -> Reading:
        """Read pictures (B, 3, s, s) in [-1, 1], at whatever side they come; `shrink` makes it the config's."""
        features, textures = self.encoder(pictures)
        embedding = F.normalize(self.text_head(features).float(), dim=1)
        styles = self.style_head(torch.cat([features, textures], 1))
        return Reading(features, embedding, self.cluster_head(features).float(), styles.float())

    def shrink(self, pictures: Tensor) -> Tensor:
        """Pictures of any size, averaged down (or stretched) to (B, 3, side, side)."""
        return F.interpolate(pictures, size=(self.config.side, self.config.side), mode="area")
