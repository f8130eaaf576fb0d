from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.runtime.seeds import BrownianNoise, PictureNoise

SHAPE = (2, 3)
LEVELS = st.floats(1e-3, 4096.0)
SEEDS = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.lists(LEVELS, min_size=2, max_size=4, unique=True))
def test_a_picture_has_its_own_path_whatever_else_is_drawn(seeds: list[int], levels: list[float]) -> None:
    together, falling = BrownianNoise(seeds, SHAPE), sorted(levels, reverse=True)
    drawn = [together(high, low) for high, low in pairwise(falling)]
    for row, seed in enumerate(seeds):
        assert torch.equal(BrownianNoise([seed], SHAPE)(falling[-2], falling[-1])[0], drawn[-1][row])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.lists(LEVELS, min_size=3, max_size=3, unique=True))
def test_two_strides_add_up_to_one(seed: int, levels: list[float]) -> None:
    high, middle, low = sorted(levels, reverse=True)
    noise = BrownianNoise([seed], SHAPE)
    strides = noise(high, middle) * (high - middle) ** 0.5 + noise(middle, low) * (middle - low) ** 0.5
    torch.testing.assert_close(strides, noise(high, low) * (high - low) ** 0.5, rtol=1e-5, atol=1e-5 * high**0.5)


def test_there_is_no_path_above_the_span() -> None:
    with pytest.raises(ValueError, match="65536"):
        BrownianNoise([1], SHAPE)(1e6, 1.0)


def test_brownian_noise_is_unit_normal_and_independent_between_levels() -> None:
    noise = BrownianNoise([1], (200, 200))
    drawn = [noise(high, low).flatten() for high, low in ((4000.0, 14.6), (14.6, 3.0), (3.0, 0.2), (0.2, 0.1999))]
    for each in drawn:
        assert abs(float(each.mean())) < 0.02
        assert abs(float(each.std()) - 1) < 0.02
        assert abs(float((each**4).mean()) - 3) < 0.1
    correlation = torch.corrcoef(torch.stack(drawn)) - torch.eye(4)
    assert float(correlation.abs().max()) < 0.02


@given(SEEDS)
def test_white_noise_does_not_depend_on_the_batch(seeds: list[int]) -> None:
    together = PictureNoise(seeds, SHAPE)
    first, second = together(), together()
    alone = PictureNoise([seeds[-1]], SHAPE)
    assert torch.equal(alone()[0], first[-1])
    assert torch.equal(alone()[0], second[-1])
