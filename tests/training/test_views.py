from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fromnoise.training.order import draws
from fromnoise.training.views import FAITHFUL, LUMINANCE, blur, covered, move, recolour, saturate, turn_hue, views

STILL = torch.full((2, 7), 0.5)


def pictures(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_view_without_movement_is_the_picture_averaged_down() -> None:
    still = move(pictures(), STILL, torch.tensor([False, False]), 16)
    assert torch.allclose(still, F.avg_pool2d(pictures(), 2), atol=1e-5)


def test_only_pictures_that_may_be_mirrored_are() -> None:
    place = STILL.clone()
    place[:, 6] = 0.2
    moved = move(pictures(), place, torch.tensor([True, False]), 32)
    assert torch.allclose(moved[0], pictures()[0].flip(2), atol=1e-4)
    assert torch.allclose(moved[1], pictures()[1], atol=1e-4)


def test_turning_the_hue_keeps_grey_and_a_third_of_a_turn_permutes_the_colours() -> None:
    matrix = turn_hue(torch.tensor([2 * torch.pi / 3]))[0]
    assert torch.allclose(matrix @ torch.ones(3), torch.ones(3), atol=1e-6)
    assert torch.allclose(matrix @ torch.eye(3)[0], torch.eye(3)[1], atol=1e-6)


def test_saturation_keeps_luminance() -> None:
    colour = torch.tensor([0.9, 0.1, 0.4])
    weights = torch.tensor(LUMINANCE)
    for amount in (0.0, 0.5, 2.0):
        changed = saturate(torch.tensor([amount]))[0] @ colour
        assert float(weights @ changed) == pytest.approx(float(weights @ colour), abs=1e-6)


def test_a_chance_of_half_changes_no_colour_and_a_low_one_takes_it_away() -> None:
    neutral = torch.full((2, 6), 0.5)
    assert torch.allclose(recolour(pictures(), neutral), pictures(), atol=1e-5)
    neutral[:, 4] = 0.0
    grey = recolour(pictures(), neutral)
    assert float((grey[:, 0] - grey[:, 2]).abs().max()) < 1e-5


def test_blur_and_cover_follow_their_chances() -> None:
    assert torch.equal(blur(pictures(), torch.tensor([0.3, 0.4])), pictures())
    assert float(blur(pictures(), torch.ones(2)).std()) < 0.5 * float(pictures().std())
    cover = torch.tensor([[0.5, 0.5, 1.0, 1.0, 0.4, 1.0, 0.5, 0.0], [0.5, 0.5, 1.0, 1.0, 0.6, 1.0, 0.5, 0.0]])
    found = covered(pictures(), cover, 0.5)
    assert torch.equal(found[1], pictures()[1])
    assert found[0, :, 16, 16].tolist() == [1.0, 0.0, -1.0]
    assert torch.equal(covered(pictures(), cover, 0.0), pictures())
    assert 0.1 < float((found[0] != pictures()[0]).any(0).float().mean()) < 0.2


def test_views_depend_on_the_draw_alone() -> None:
    chosen = draws(seed=0, step=1, batch=2, count=9)
    may = torch.tensor([True, True])
    both = views(pictures(), chosen, may, 16)
    second = views(pictures()[1:], chosen[1:], may[1:], 16)
    assert both.shape == (2, 3, 16, 16)
    assert torch.allclose(both[1:], second, atol=1e-6)
    assert not torch.allclose(both, views(pictures(), draws(1, 1, 2, 9), may, 16), atol=0.1)


def test_faithful_views_stay_near_the_picture() -> None:
    chosen = draws(seed=0, step=1, batch=8, count=9)
    flat = torch.tensor([0.8, -0.2, 0.1]).view(1, 3, 1, 1).expand(8, 3, 32, 32)
    may = torch.zeros(8, dtype=torch.bool)
    near, far = (views(flat, chosen, may, 16, *limits).mean((2, 3)) for limits in ((FAITHFUL,), ()))
    assert float((near - flat[:, :, 0, 0]).abs().max()) < 0.2 < float((far - flat[:, :, 0, 0]).abs().max())
