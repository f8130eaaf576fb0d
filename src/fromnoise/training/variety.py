"""Pictures unlike any in a dataset, made from those in it: other colours, dark backgrounds, square pixels.

An autoencoder that has seen only drawings on white tints black and melts pixel art; these teach it to rebuild what
people bring, and a denoiser to draw on other grounds and in square pixels where words say so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fromnoise.data.captions import with_article
from fromnoise.training.views import saturate, turn_hue

ENLARGED, RECOLOURED, INVERTED, SHADED, PIXELATED = 0.3, 0.6, 0.4, 0.3, 0.6
"""Shares of pictures that have that done to them."""

USUAL_SIDE, SIDES = 32, (20, 72)
"""Square pixels along a side: half of the time those of classic tiles, else any number in between."""

GRAIN, LEVELS = 0.2, (2, 32)
"""Most deviation of the noise on square pixels, and how many shades a channel has where there are few of them."""


PAPERS = {
    "white": (255, 255, 255),
    "gray": (128, 128, 128),
    "black": (0, 0, 0),
    "red": (200, 30, 30),
    "orange": (240, 140, 30),
    "yellow": (240, 230, 60),
    "green": (40, 160, 50),
    "dark green": (20, 80, 30),
    "turquoise": (60, 200, 190),
    "blue": (40, 70, 210),
    "light blue": (140, 190, 240),
    "dark blue": (20, 30, 100),
    "purple": (130, 50, 170),
    "pink": (240, 140, 190),
    "brown": (120, 70, 30),
    "beige": (225, 205, 165),
}
"""What a drawing's ground is called, by the nearest of these colours."""


class Varied(NamedTuple):
    """A picture (3, S, S) in [-1, 1], and what a caption may say of what was done to it, "" for nothing."""

    picture: Tensor
    said: str


def vary(picture: Tensor, generator: Generator) -> Varied:
    """A picture (3, S, S) in [-1, 1] as another of the same size and range."""

    def chance() -> float:
        return torch.rand((), generator=generator).item()

    made, paper, said = picture, picture.new_ones(3, 1, 1), list[str]()
    if chance() < ENLARGED:
        made = enlarge(made, 1 + chance(), chance(), chance())
        said.append("close-up")
    if chance() < RECOLOURED:
        colours = Colours(hue=chance(), saturation=chance(), contrast=chance(), brightness=chance())
        made, paper = recolour(made, colours), recolour(paper, colours)
        said.append("odd colors")
    if chance() < INVERTED:
        made, paper = -made, -paper
    if chance() < SHADED:
        shade = torch.rand(3, 1, 1, generator=generator)
        made, paper = (made + 1) * shade - 1, (paper + 1) * shade - 1
    if chance() < PIXELATED:
        made = pixelate(made, generator)
        said.append("pixel art")
    return Varied(made, ", ".join([*said, *ground(paper)]))


def ground(paper: Tensor) -> list[str]:
    """What is said of a ground of one colour (3, 1, 1) in [-1, 1]: nothing of white."""
    seen = ((paper + 1) * 127.5).flatten()
    name = min(PAPERS, key=lambda each: float((seen - torch.tensor(PAPERS[each])).square().sum()))
    return [] if name == "white" else ["on " + with_article(f"{name} background")]


def enlarge(picture: Tensor, zoom: float, across: float, down: float) -> Tensor:
    """A part of a picture (3, S, S), at `across` and `down` in [0, 1) of the way, as large as the whole."""
    side = picture.shape[-1]
    part = round(side / zoom)
    left, top = int(across * (side - part + 1)), int(down * (side - part + 1))
    cut = picture[None, :, top : top + part, left : left + part]
    return F.interpolate(cut, size=side, mode="bilinear", align_corners=False)[0]


class Colours(NamedTuple):
    """Each in [0, 1): hues turned by up to a circle, up to half more colour or none, half of the contrast or more."""

    hue: float
    saturation: float
    contrast: float
    brightness: float


def recolour(picture: Tensor, colours: Colours) -> Tensor:
    """A picture (3, h, w) in [-1, 1] in other colours."""
    matrix = saturate(torch.tensor([1.5 * colours.saturation])) @ turn_hue(torch.tensor([2 * math.pi * colours.hue]))
    turned = torch.einsum("oi,ihw->ohw", matrix[0], picture)
    return (turned * (0.5 + 0.8 * colours.contrast) + 0.6 * (colours.brightness - 0.5)).clamp(-1, 1)


def pixelate(picture: Tensor, generator: Generator) -> Tensor:
    """A picture (3, S, S) of square pixels, each the mean of its place or one pixel of it, some grainy, some in few
    shades."""
    usual, other, smooth, grainy, grain, few, shades = torch.rand(7, generator=generator).tolist()
    side = USUAL_SIDE if usual < 0.5 else SIDES[0] + int((SIDES[1] - SIDES[0]) * other)
    small = F.interpolate(picture[None], size=side, mode="area" if smooth < 0.5 else "nearest")
    if grainy < 0.5:
        noise = GRAIN * grain * torch.randn(small.shape, generator=generator)
        small = (small + noise * (small < 1)).clamp(-1, 1)  # white stays as it is
    if few < 0.5:
        steps = LEVELS[0] - 1 + int((LEVELS[1] - LEVELS[0]) * shades)
        small = ((small + 1) / 2 * steps).round() / steps * 2 - 1
    return F.interpolate(small, size=picture.shape[-1], mode="nearest")[0]
