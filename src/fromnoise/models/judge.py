"""The judges: small picture encoders that say what a picture shows and in which style.

Two architectures, so that the judge of reported figures shares no weakness with the one that selects: a plain residual
network (He et al. 2016), and one whose last stage is a transformer over patches (Xiao et al. 2021, "Early convolutions
help transformers see better"). Beside either stands a small branch for the style alone, which lies in colours and
strokes. Shapes: B batch, s the side that pictures are read at.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fromnoise.models.config import Config


@dataclass(frozen=True)
class JudgeConfig(Config):
    """Fields of a judge's `config.json`.

    `side` is what pictures are shrunk to, `clusters` how many there are; `strokes` is the width of the branch for
    styles, `shades` how many levels of each colour channel its palette tells apart.
    """

    architecture: str = "residual"
    side: int = 64
    width: int = 32
    text_dim: int = 384
    clusters: int = 970
    strokes: int = 24
    shades: int = 8
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
    """Four stages of residual blocks, and the mean of the last map."""

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        w = config.width
        self.channels = 8 * w
        self.near = nn.Sequential(stem(w), ResidualBlock(w, w), ResidualBlock(w, 2 * w, 2), ResidualBlock(2 * w, 2 * w))
        shapes = [(2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2)]
        self.far = nn.Sequential(*(ResidualBlock(*shape) for shape in shapes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, s, s) to features (B, channels)."""
        return self.far(self.near(x)).mean((2, 3))


class PatchEncoder(nn.Module):
    """Residual blocks down to patches of 8 pixels, then transformer blocks over them."""

    DEPTH, HEADS, PATCH = 3, 6, 8

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        w, across = config.width, config.side // self.PATCH
        self.channels = 6 * w
        self.near = nn.Sequential(stem(w), ResidualBlock(w, w), ResidualBlock(w, 2 * w, 2))
        self.patch = nn.Sequential(ResidualBlock(2 * w, 4 * w, 2), nn.Conv2d(4 * w, self.channels, 1))
        self.place = nn.Parameter(torch.randn(1, self.channels, across, across) * 0.02)
        self.far = nn.Sequential(*(TransformerBlock(self.channels, self.HEADS) for _ in range(self.DEPTH)))
        self.norm = nn.LayerNorm(self.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, s, s) to features (B, channels); places are stretched for another side."""
        patches = self.patch(self.near(x))
        place = F.interpolate(self.place, size=patches.shape[2:], mode="bilinear")
        return self.norm(self.far((patches + place).flatten(2).transpose(1, 2))).mean(1)


class Strokes(nn.Module):
    """What a picture is drawn with: textures at three scales (means and deviations of maps, the diagonal of the Gram
    matrices of Gatys et al. 2016) and its palette. It looks so near that it can't tell what is drawn.
    """

    PALETTE_SCALE = 6.0
    """Brings the palette's roots, most of them near 0, to the size of the normalised textures."""

    def __init__(self, width: int, shades: int) -> None:
        super().__init__()
        self.shades, textures = shades, 2 * (width + 2 * width + 4 * width)
        self.features = textures + shades**3
        stem = nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False)
        self.near = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU())
        self.middle = ResidualBlock(width, 2 * width, 2)
        self.far = ResidualBlock(2 * width, 4 * width, 2)
        self.norm = nn.BatchNorm1d(textures)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, s, s) in [-1, 1] to (B, features)."""
        near = self.near(x)
        middle = self.middle(near)
        textures = torch.cat([texture(each.float()) for each in (near, middle, self.far(middle))], 1)
        return torch.cat([self.norm(textures), self.PALETTE_SCALE * palette(x.float(), self.shades)], 1)


def texture(near: Tensor) -> Tensor:
    """How much of each local pattern there is, and how unevenly: means and deviations of a map, (B, 2 C)."""
    mean = near.mean((2, 3))
    variance = near.square().mean((2, 3)) - mean.square()
    return torch.cat([mean, variance.clamp(min=1e-6).sqrt()], 1)


def palette(pictures: Tensor, shades: int) -> Tensor:
    """The root of each colour's share in pictures (B, 3, H, W), on a grid of `shades` levels a channel: (B, shades^3).

    A pixel counts for the eight grid colours around its own, by nearness. White, the paper, does not count; the root
    lets small details weigh (the Hellinger kernel).
    """
    level = ((pictures.clamp(-1, 1) + 1) / 2 * (shades - 1)).flatten(2)
    below = level.floor().clamp(max=shades - 2)
    over = level - below
    counts = pictures.new_zeros(len(pictures), shades**3)
    for corner in CORNERS:
        up = torch.tensor(corner).view(1, 3, 1)
        red, green, blue = (below.long() + up).unbind(1)
        weight = torch.where(up.bool(), over, 1 - over).prod(1)
        counts.scatter_add_(1, (red * shades + green) * shades + blue, weight)
    counts[:, -1] = 0
    return root(counts / counts.sum(1, keepdim=True).clamp(min=1))


def root(shares: Tensor) -> Tensor:
    """The square root of shares in [0, 1], whose slope is bounded where they are near 0."""
    if not shares.requires_grad:
        return shares.sqrt()
    bounded = (shares + SMALL_SHARE).sqrt()
    return bounded + (shares.sqrt() - bounded).detach()


SMALL_SHARE = 2e-4
"""Shares of a palette that are smaller than this hardly steepen its root."""

CORNERS = tuple(product((0, 1), repeat=3))
"""The corners of a cell of the colour grid."""

ENCODERS: dict[str, type[ResidualEncoder] | type[PatchEncoder]] = {"residual": ResidualEncoder, "patches": PatchEncoder}
"""Architectures by the name in the config."""


class Judge(nn.Module):
    """An encoder with two heads, beside texts and among clusters of concepts, and a branch of its own for styles.

    They share nothing: what shows the concept must not depend on the colours and strokes that make the style.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ENCODERS[config.architecture](config)
        self.text_head = nn.Linear(self.encoder.channels, config.text_dim)
        self.cluster_head = nn.Linear(self.encoder.channels, config.clusters)
        self.strokes = Strokes(config.strokes, config.shades)
        self.style_head = nn.Linear(self.strokes.features, len(config.styles))

    def forward(self, pictures: Tensor, plain: Tensor | None = None) -> Reading:
        """Read pictures (B, 3, s, s) in [-1, 1]; `shrink` makes the side the config's.

        Styles are read from `plain` pictures (P, 3, s, s) where they are given: training hides colours from the rest.
        """
        features = self.encoder(pictures)
        embedding = F.normalize(self.text_head(features).float(), dim=1)
        styles = self.style_head(self.strokes(pictures if plain is None else plain))
        return Reading(features, embedding, self.cluster_head(features).float(), styles.float())

    def shrink(self, pictures: Tensor) -> Tensor:
        """Pictures of any size, averaged down (or stretched) to (B, 3, side, side)."""
        return F.interpolate(pictures, size=(self.config.side, self.config.side), mode="area")


def merged(logits: Tensor, members: Tensor) -> Tensor:
    """Logits of concepts (B, C) as logits of clusters (B, K): the logarithm of the sum over their `members` (C, K)."""
    top = logits.max(1, keepdim=True).values.detach()
    return ((logits - top).exp() @ members + 1e-30).log() + top
