"""Varied pictures: as large and in the same range as before, and square pixels that are square."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.training.variety import PAPERS, SIDES, Colours, enlarge, ground, pixelate, recolour, vary

PICTURE = torch.linspace(-1, 1, 3 * 64 * 64).view(3, 64, 64)


@given(st.integers(0, 2**32 - 1))
def test_a_varied_picture_is_a_picture(seed: int):
    made, said = vary(PICTURE, torch.Generator().manual_seed(seed))
    assert made.shape == PICTURE.shape and made.abs().max() <= 1
    again = vary(PICTURE, torch.Generator().manual_seed(seed))
    assert torch.equal(made, again.picture) and said == again.said
    assert said or torch.equal(made, PICTURE) or made.max() > 0.7  # a ground near white goes unsaid


def test_variety_is_various():
    made = [vary(PICTURE, torch.Generator().manual_seed(seed)).picture for seed in range(200)]
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
    grey = recolour(PICTURE, Colours(hue=0.3, saturation=0.0, contrast=0.625, brightness=0.5))
    torch.testing.assert_close(grey[0], grey[1])
    same = recolour(PICTURE, Colours(hue=0.0, saturation=1 / 1.5, contrast=0.625, brightness=0.5))
    torch.testing.assert_close(same, PICTURE, atol=1e-5, rtol=0)


def test_enlarging_shows_the_part_asked_for():
    corner = enlarge(PICTURE, 2.0, 0.0, 0.0)
    torch.testing.assert_close(corner.mean(), PICTURE[:, :32, :32].mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(enlarge(PICTURE, 1.0, 0.5, 0.5), PICTURE)


def test_what_is_said_of_grounds():
    said = {name: ground(torch.tensor(colour).view(3, 1, 1) / 127.5 - 1) for name, colour in PAPERS.items()}
    assert said.pop("white") == []
    assert said["orange"] == ["on an orange background"] and said["black"] == ["on a black background"]
    assert all(name in words[0] for name, words in said.items())


def test_what_is_said_was_done():
    white = torch.ones(3, 64, 64)
    made = [vary(white, torch.Generator().manual_seed(seed)) for seed in range(100)]
    black = [each.picture for each in made if each.said == "on a black background"]
    assert black and all(each.max() < -0.4 for each in black)
    assert any("pixel art" in each.said for each in made) and any("close-up" in each.said for each in made)
