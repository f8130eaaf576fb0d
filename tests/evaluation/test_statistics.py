from __future__ import annotations

import pytest
import torch

from fromnoise.evaluation.statistics import Estimate, mean, ratio, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.49016, 0.94332), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_gives_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    """The last row is Newcombe's 1998 example (table I, method 3: 0.2553 to 0.3662)."""
    found = wilson(successes, n)
    assert (found.value, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says() -> None:
    own = torch.Generator().manual_seed(0)
    parts = torch.binomial(torch.full((2000,), 150.0), torch.tensor(0.6), generator=own).int().tolist()
    wholes = torch.binomial(torch.full((2000,), 754.0), torch.tensor(0.85), generator=own).int().tolist()
    found = [ratio(wilson(part, 150), wilson(whole, 754)) for part, whole in zip(parts, wholes, strict=True)]
    covered = sum(each is not None and each.low <= 0.6 / 0.85 <= each.high for each in found) / len(found)
    assert 0.935 < covered < 0.965


def test_a_ratio_survives_nothing_and_everything() -> None:
    none, all_ = ratio(wilson(0, 50), wilson(90, 100)), ratio(wilson(50, 50), wilson(100, 100))
    assert none is not None
    assert none.value == none.low == 0
    assert 0 < none.high < 0.1
    assert all_ is not None
    assert all_.low < 1 < all_.high
    assert ratio(wilson(1, 5), wilson(0, 5)) is None


def test_a_ratio_to_an_exact_whole_scales_the_interval() -> None:
    part = wilson(30, 100)
    found = ratio(part, Estimate(0.8, 0.8, 0.8, 10**9))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((part.low / 0.8, part.high / 0.8))


def test_the_bootstrap_agrees_with_the_normal_interval_for_many_values() -> None:
    values = torch.randn(900, generator=torch.Generator().manual_seed(1)) * 3 + 5
    found = mean(values)
    half = 1.96 * float(values.std()) / 30
    assert found.value == pytest.approx(float(values.mean()))
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)
