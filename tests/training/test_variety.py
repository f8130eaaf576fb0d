"""Varied pictures: as large and in the same range as before, and square pixels that are square."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.training.variety import SIDES, enlarge, pixelate, recolour, vary

PICTURE = torch.linspace(-1, 1, 3 * 64 * 64).view(3, 64, 64)


@given(st.integers(0, 2**32 - 1))
def test_a_varied_picture_is_a_picture(seed: int):
    made = vary(PICTURE, torch.Generator().manual_seed(seed))
    assert made.shape == PICTURE.shape and made.abs().max() <= 1
    assert torch.equal(made, vary(PICTURE, torch.Generator().manual_seed(seed)))


def test_variety_is_various():
    made = [vary(PICTURE, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert 0.01 < sum(torch.equal(each, PICTURE) for each in made) / 200 < 0.2  # nothing happened to some
    assert sum(each.mean() < -0.3 for each in made) > 20  # dark ones
    repeated = [bool((each[:, ::2, ::2] == each[:, 1::2, 1::2]).float().mean() > 0.3) for each in made]
    assert 0.3 < sum(repeated) / 200 < 0.8  # square pixels


def test_square_pixels_are_square():
    picture = torch.linspace(-1, 1, 3 * 288 * 288).view(3, 288, 288)
    for seed in range(20):
        made = pixelate(picture, torch.Generator().manual_seed(seed))
        rows, columns = ((made.diff(dim=way) != 0).any(0).any(2 - way) for way in (1, 2))
        assert max(int(rows.sum()), int(columns.sum())) < SIDES[1]  # of 288: places after which anything changes


def test_colours_at_their_limits():
    grey = recolour(PICTURE, hue=0.3, saturation=0.0, contrast=0.625, brightness=0.5)
    torch.testing.assert_close(grey[0], grey[1])
    same = recolour(PICTURE, hue=0.0, saturation=1 / 1.5, contrast=0.625, brightness=0.5)
    torch.testing.assert_close(same, PICTURE, atol=1e-5, rtol=0)


def test_enlarging_shows_the_part_asked_for():
    corner = enlarge(PICTURE, 2.0, 0.0, 0.0)
    torch.testing.assert_close(corner.mean(), PICTURE[:, :32, :32].mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(enlarge(PICTURE, 1.0, 0.5, 0.5), PICTURE)
