"""A second seed's noise blended in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fromnoise as fn
from fromnoise.pipeline.starting import slerp


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> fn.Pipeline:
    return fn.load(tiny_model, engine="eager")


def pixels(picture: fn.Picture) -> np.ndarray:
    return np.asarray(picture.image).astype(int)


@pytest.mark.parametrize("rows", [False, True])
def test_slerp_keeps_the_length_and_ends_at_both(rows: bool) -> None:
    one, other = torch.randn(2, 3, 4, 32, 32)
    assert torch.allclose(slerp(one, other, 0.0, rows=rows), one, atol=1e-5)
    assert torch.allclose(slerp(one, other, 1.0, rows=rows), other, atol=1e-5)
    lengths = slerp(one, other, 0.4).flatten(1).norm(dim=1)
    assert torch.allclose(lengths, one.flatten(1).norm(dim=1), rtol=0.03)
    assert torch.allclose(slerp(one, one, 0.5, rows=rows), one, atol=1e-5)


def test_slerp_by_rows_is_the_web_uis_arithmetic() -> None:
    """Its formula (modules/rng.py) written out for a picture (C, h, w), whose dimension 1 are the rows."""
    low, high = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    omega = torch.acos((low / low.norm(dim=1, keepdim=True) * high / high.norm(dim=1, keepdim=True)).sum(1))
    expected = (torch.sin(0.7 * omega) / torch.sin(omega)).unsqueeze(1) * low
    expected = expected + (torch.sin(0.3 * omega) / torch.sin(omega)).unsqueeze(1) * high
    assert torch.allclose(slerp(low[None], high[None], 0.3, rows=True)[0], expected)


def test_none_is_the_picture_and_all_of_it_is_the_other_seeds(pipe: fn.Pipeline) -> None:
    base, other = (pixels(pipe("a kite", seed=seed, steps=3)[0]) for seed in (3, 9))
    assert np.array_equal(pixels(pipe("a kite", seed=3, steps=3, variation=0.0, variation_seed=9)[0]), base)
    whole = pixels(pipe("a kite", seed=3, steps=3, variation=1.0, variation_seed=9)[0])
    assert np.abs(whole - other).max() <= 2
    near, far = (pixels(pipe("a kite", seed=3, steps=3, variation=v, variation_seed=9)[0]) for v in (0.1, 0.5))
    assert 0 < np.abs(near - base).mean() < np.abs(far - base).mean()


def test_the_variation_seed_counts_up_and_the_seed_stays(pipe: fn.Pipeline) -> None:
    together = pipe("a kite", seed=3, steps=3, variation=0.3, variation_seed=5, count=3, exact=True)
    assert [(each.request.seed, each.request.variation_seed) for each in together] == [(3, 5), (3, 6), (3, 7)]
    for picture in together:
        assert np.array_equal(pixels(pipe(picture.request)[0]), pixels(picture))
    assert not np.array_equal(pixels(together[0]), pixels(together[1]))


def test_a_batch_is_near_each_alone(pipe: fn.Pipeline) -> None:
    together = pipe("a kite", seed=3, steps=3, variation=0.3, variation_seed=5, count=3, sampler="euler-a")
    for picture in together:
        assert np.abs(pixels(pipe(picture.request)[0]) - pixels(picture)).max() <= 2


def test_a_fresh_variation_seed_is_stated(pipe: fn.Pipeline) -> None:
    request = pipe.resolve("a kite", seed=3, variation=0.3)
    assert request.variation_seed is not None
    assert pipe.resolve("a kite", seed=3).variation_seed is None


@pytest.mark.parametrize("like", ["diffusers", "a1111", "comfyui"])
def test_every_tools_noise(pipe: fn.Pipeline, like: str) -> None:
    one, other = (pipe("a kite", seed=3, steps=2, like=like, variation=v, variation_seed=4)[0] for v in (0.0, 0.5))
    assert not np.array_equal(pixels(one), pixels(other))
