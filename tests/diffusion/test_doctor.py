from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fromnoise.diffusion.doctor import RANGES, Range, diagnose, glance, suggested
from fromnoise.diffusion.samplers import Step


def step(denoised: Tensor, index: int = 1, sigma: float = 14.6, noise_state: Tensor | None = None) -> Step:
    return Step(index, sigma, denoised, denoised, denoised, noise_state=noise_state)


def drawing(
    norms: list[float], count: int = 2, *, sigma: float = 14.6, noise_state: Tensor | None = None
) -> list[Step]:
    """A drawing whose predicted pictures have these norms and one direction each."""
    unit = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    unit = unit / unit.square().mean((1, 2, 3), keepdim=True).sqrt()
    return [step(unit * norm, k + 1, sigma / (k + 1), noise_state) for k, norm in enumerate(norms)]


def test_position_is_even_in_the_logarithm() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    torch.testing.assert_close(Range(2.0, 4.0).position(values), torch.tensor([-1.0, 0.0, 1.0, 2.0]))


def test_a_glance_at_each_picture() -> None:
    pictures = torch.stack([torch.full((1, 2, 2), 3.0), torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])])
    seen = glance(step(pictures))
    assert seen.sigma == 14.6 and seen.norm.tolist() == [3.0, 1.0]
    assert seen.deviation.tolist() == pytest.approx([0.0, math.sqrt(4 / 3)])


def test_figures() -> None:
    there_and_back = diagnose(drawing([0.5, 2.0, 0.0, 1.0, 1.5])).figures
    assert there_and_back.norm == pytest.approx(1.5)
    assert there_and_back.opening == pytest.approx(0.5 / 1.5)
    assert there_and_back.wander == pytest.approx((1.5 + 2.0 + 1.0 + 0.5) / (1.5 - 0.5))


@pytest.mark.parametrize(
    ("norms", "verdict"),
    [
        ([0.35, 0.4, 0.5, 0.6, 0.75, 0.8], "too weak"),
        ([1.8, 1.0, 1.2, 1.1, 1.15], "fine"),
        ([6.0, 1.0, 3.0, 1.2, 2.6, 1.4, 2.0], "too strong"),
    ],
)
def test_verdicts(norms: list[float], verdict: str) -> None:
    found = diagnose(drawing(norms), guidance=6.0)
    assert found.verdict == verdict
    assert set(found.positions) == set(RANGES)
    assert found.position == pytest.approx(sum(found.positions.values()) / len(RANGES))
    assert bool(found.advice) == (verdict != "fine")
    assert all(each in str(found) for each in (*RANGES, "deviation", "agreement", *found.advice))
    assert str(found).startswith(f"guidance: {verdict}") and len(found.glances) == len(norms)


def test_the_verdict_is_the_mean_over_pictures_each_for_itself() -> None:
    norms = [0.75, 0.60, 0.75, 0.85, 0.95, 1.05]
    both, alone = (
        diagnose(drawing(norms, count=2)),
        diagnose([step(each.x[:1], each.index, each.sigma) for each in drawing(norms)]),
    )
    assert both.positions == pytest.approx(alone.positions, rel=1e-5)  # sums of float32 differ in their last bits


def test_figures_that_say_nothing_do_not_decide() -> None:
    norms = [2.2, 1.2, 1.6, 1.3, 1.5, 1.4]
    stochastic = diagnose(drawing(norms, noise_state=torch.zeros(2, 1)))
    assert set(stochastic.positions) == {"norm", "opening"}
    momentum = diagnose([replace(each, guidance=(torch.zeros(1),)) for each in drawing(norms)])
    assert set(momentum.positions) == {"norm", "opening"}
    from_a_picture = diagnose(drawing(norms, sigma=3.0))
    assert set(from_a_picture.positions) == {"norm"}
    assert set(diagnose(drawing([1.0])).positions) == {"norm"}


def test_agreement_across_seeds() -> None:
    same = step(torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1))
    other = step(torch.eye(3).reshape(3, 3, 1, 1) + 0.0)
    assert diagnose([same]).figures.agreement == pytest.approx(1.0)
    assert diagnose([other]).figures.agreement == pytest.approx(0.0)
    assert diagnose(drawing([1.0], count=1)).figures.agreement is None


def test_pixels() -> None:
    red, grey = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([0.0, 0.0, 0.0])
    pixels = torch.stack([red, grey, grey, red * 1.5], dim=1).reshape(1, 3, 2, 2)
    figures = diagnose(drawing([1.0], count=1), pixels=pixels).figures
    assert figures.saturation == 0.5 and figures.clipped == 3 / 12
    assert diagnose(drawing([1.0], count=1)).figures.saturation is None


@pytest.mark.parametrize(("guidance", "position"), [(30.0, 1.9), (14.0, 1.3), (1.0, -0.4), (0.0, -0.4)])
def test_advice_leads_to_a_healthy_scale(guidance: float, position: float) -> None:
    scale = suggested(guidance, position)
    assert scale is not None and 2.5 <= scale <= 7.0


@pytest.mark.parametrize(
    ("guidance", "position", "scale"),
    [
        (0.0, -4.0, 100.0),
        (4.0, -math.inf, 100.0),
        (100.0, -0.5, None),
        (0.6, 1.2, None),
        (0.0, 1.2, None),
        (1.0, 1.5, None),
        (3.0, 1.0e300, 1.0),
    ],
)
def test_advice_stays_within_what_may_be_asked_for(guidance: float, position: float, scale: float | None) -> None:
    assert suggested(guidance, position) == scale


def test_advice_names_the_scale() -> None:
    weak, strong = (diagnose(drawing(norms), guidance=g) for norms, g in (([0.4, 0.7], 1.0), ([3.0, 1.5], 20.0)))
    assert "instead of 1" in weak.advice[0] and "instead of 20" in strong.advice[0]
    assert diagnose(drawing([3.0, 1.5])).advice and "instead" not in diagnose(drawing([3.0, 1.5])).advice[0]


def test_a_flat_prediction_is_no_division_by_zero() -> None:
    found = diagnose(drawing([0.0] * 6))
    assert found.verdict == "too weak" and not math.isnan(found.position)
    assert "try guidance 100 " in diagnose(drawing([0.0] * 6), guidance=4.0).advice[0]
