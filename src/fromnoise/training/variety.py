"""Pictures unlike any in a dataset, made from those in it: other colours, dark backgrounds, square pixels.

An autoencoder that has seen only drawings on white tints black and melts pixel art; these teach it to rebuild what
people bring.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from fromnoise.training.views import saturate, turn_hue

ENLARGED, RECOLOURED, INVERTED, SHADED, PIXELATED = 0.3, 0.6, 0.4, 0.3, 0.6
"""Shares of pictures that have that done to them."""

USUAL_SIDE, SIDES = 32, (20, 72)
"""Square pixels along a side: half of the time those of classic tiles, else any number in between."""

GRAIN, LEVELS = 0.2, (2, 32)
"""Most deviation of the noise on square pixels, and how many shades a channel has where there are few of them."""


def vary(picture: Tensor, generator: Generator) -> Tensor:
    """A picture (3, S, S) in [-1, 1] as another of the same size and range."""

    def chance() -> float:
        return torch.rand((), generator=generator).item()

    made = picture
    if chance() < ENLARGED:
        made = enlarge(made, 1 + chance(), chance(), chance())
    if chance() < RECOLOURED:
        made = recolour(made, hue=chance(), saturation=chance(), contrast=chance(), brightness=chance())
    if chance() < INVERTED:
        made = -made
    if chance() < SHADED:
        made = (made + 1) * torch.rand(3, 1, 1, generator=generator) - 1
    if chance() < PIXELATED:
        made = pixelate(made, generator)
    return made


def enlarge(picture: Tensor, zoom: float, across: float, down: float) -> Tensor:
    """A part of a picture (3, S, S), at `across` and `down` in [0, 1) of the way, as large as the whole."""
    side = picture.shape[-1]
    part = round(side / zoom)
    left, top = int(across * (side - part + 1)), int(down * (side - part + 1))
    cut = picture[None, :, top : top + part, left : left + part]
    return F.interpolate(cut, size=side, mode="bilinear", align_corners=False)[0]


def recolour(picture: Tensor, hue: float, saturation: float, contrast: float, brightness: float) -> Tensor:
    """Each in [0, 1): hues turned by up to a circle, up to half more colour or none, half of the contrast or more."""
    matrix = saturate(torch.tensor([1.5 * saturation])) @ turn_hue(torch.tensor([2 * math.pi * hue]))
    turned = torch.einsum("oi,ihw->ohw", matrix[0], picture)
    return (turned * (0.5 + 0.8 * contrast) + 0.6 * (brightness - 0.5)).clamp(-1, 1)


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
