"""The many looks of one picture that a judge learns from: moved, recoloured, blurred, noisy, partly covered.

Everything is decided by the draw: `CHANCES` numbers in [0, 1) a picture, and its own noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fromnoise.training.order import Draw

CHANCES = 24
"""Numbers that a view takes."""


@dataclass(frozen=True)
class Limits:
    """How far views may stray.

    Most radians of `turn`, log scale of `zoom`, log ratio of sides of `aspect`, slant of `shear`, and `shift` in half
    pictures; most radians of `hue` around the grey axis, relative `saturation`, log `contrast`, and `brightness` in
    [-1, 1]; `grey` is the share without colour, `blur` the most that is mixed in of the mean of 3x3 pixels, `noise`
    its most deviation, `covered` the share partly covered by a rectangle.
    """

    turn: float
    zoom: float
    aspect: float
    shear: float
    shift: float
    hue: float
    saturation: float
    contrast: float
    brightness: float
    grey: float
    blur: float
    noise: float
    covered: float


STRAYING = Limits(0.35, 0.35, 0.2, 0.15, 0.15, 0.5, 0.6, 0.3, 0.15, 0.12, 1.0, 0.1, 0.6)
"""For what is shown: the same thing in another hand and other colours."""

FAITHFUL = Limits(0.1, 0.15, 0.05, 0.05, 0.12, 0.08, 0.1, 0.05, 0.05, 0.0, 0.6, 0.05, 0.0)
"""For the style: as far as an autoencoder's or a denoiser's small errors go, and no farther."""

COVER = (0.1, 0.45)
"""Sides of a covering rectangle."""

LUMINANCE = (0.30, 0.59, 0.11)


def views(pictures: Tensor, draws: list[Draw], may_flip: Tensor, side: int, limits: Limits = STRAYING) -> Tensor:
    """Pictures (B, 3, S, S) in [-1, 1] as (B, 3, side, side) views of them, about [-1, 1].

    A picture is mirrored half of the times where `may_flip` (B,) allows it.
    """
    chances = torch.stack([torch.rand(CHANCES, generator=draw.generator("view")) for draw in draws])
    noise = torch.stack([torch.randn(3, side, side, generator=draw.generator("grain")) for draw in draws])
    place, colour, spoil, cover = chances.split((7, 6, 3, 8), dim=1)
    moved = move(pictures, place, may_flip, side, limits)
    soft = blur(recolour(moved, colour, limits), limits.blur * spoil[:, 0])
    return covered(soft + noise * _map(limits.noise * spoil[:, 1] ** 2), cover, limits.covered)


def move(pictures: Tensor, place: Tensor, may_flip: Tensor, side: int, limits: Limits = STRAYING) -> Tensor:
    """Turn, scale, slant, shift and perhaps mirror by `place` (B, 7), reading bilinearly; borders are continued."""
    turn, zoom, aspect, slant, right, down = _signed(place[:, :6]).unbind(1)
    turn, zoom, aspect = turn * limits.turn, (-zoom * limits.zoom).exp(), (aspect * limits.aspect).exp()
    mirror = torch.where(may_flip & (place[:, 6] < 0.5), -1.0, 1.0)
    leaning = slant * limits.shear - turn.sin() * zoom
    across = torch.stack([turn.cos() * zoom * aspect * mirror, leaning, right * limits.shift], 1)
    along = torch.stack([turn.sin() * zoom * mirror, turn.cos() * zoom / aspect, down * limits.shift], 1)
    grid = F.affine_grid(torch.stack([across, along], 1), [len(pictures), 3, side, side], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def recolour(pictures: Tensor, colour: Tensor, limits: Limits = STRAYING) -> Tensor:
    """Turn the hue, stretch saturation and contrast, shift brightness by `colour` (B, 6); some lose all colour."""
    hue, saturation, contrast, brightness = _signed(colour[:, :4]).unbind(1)
    saturation = (1 + saturation * limits.saturation) * (colour[:, 4] >= limits.grey)
    matrix = saturate(saturation) @ turn_hue(hue * limits.hue)
    turned = torch.bmm(matrix, pictures.flatten(2)).view_as(pictures)
    return turned * _map((contrast * limits.contrast).exp()) + _map(brightness * limits.brightness)


def turn_hue(angle: Tensor) -> Tensor:
    """Rotations (B, 3, 3) of RGB about the grey axis (Rodrigues' formula) by `angle` (B,)."""
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return axis + cosine * (torch.eye(3) - axis) + sine * cross


def saturate(amount: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that scale the distance from grey of equal luminance by `amount` (B,)."""
    grey = torch.tensor(LUMINANCE).expand(3, 3)
    return grey + amount[:, None, None] * (torch.eye(3) - grey)


def blur(pictures: Tensor, chance: Tensor) -> Tensor:
    """Mix in the mean of 3x3 pixels: not at all for `chance` (B,) below 0.4, fully above 0.9."""
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(pictures, soft, _map((2 * chance - 0.8).clamp(0.0, 1.0)))


def covered(pictures: Tensor, cover: Tensor, share: float) -> Tensor:
    """A `share` of the pictures with a rectangle of one colour on them (DeVries & Taylor 2017), by `cover` (B, 8)."""
    inside = _inside(cover[:, 0], cover[:, 2], pictures.shape[3])[:, None, :]
    inside = inside & _inside(cover[:, 1], cover[:, 3], pictures.shape[2])[:, :, None]
    inside = inside & (cover[:, 4] < share)[:, None, None]
    return torch.where(inside[:, None], _signed(cover[:, 5:8])[:, :, None, None], pictures)


def _inside(centre: Tensor, extent: Tensor, side: int) -> Tensor:
    """Which of `side` pixels lie in each stretch, (B, side)."""
    half = (COVER[0] + (COVER[1] - COVER[0]) * extent) / 2
    return (torch.linspace(0, 1, side) - centre[:, None]).abs() < half[:, None]


def _signed(chances: Tensor) -> Tensor:
    """[0, 1) to [-1, 1)."""
    return 2 * chances - 1


def _map(values: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1)."""
    return values[:, None, None, None]
