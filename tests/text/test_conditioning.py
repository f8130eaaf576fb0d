"""Conditioning and its mixes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fromnoise.runtime.errors import UsageError
from fromnoise.text import Conditioning, mix
from fromnoise.text.conditioning import slerp


def conditioning(seed: int, rows: int = 2, positions: int = 3) -> Conditioning:
    draw = torch.Generator().manual_seed(seed)
    return Conditioning(torch.randn(rows, positions, 8, generator=draw), torch.randn(rows, 5, generator=draw))


def test_rows() -> None:
    one = conditioning(0)
    assert len(one) == 2
    assert one.pooled is not None
    last, twice, plain = one[1:], one.repeat(2), Conditioning(one.words)
    assert torch.equal(last.words, one.words[1:]) and torch.equal(last.pooled, one.pooled[1:])
    assert torch.equal(twice.words, torch.stack([one.words[0], one.words[0], one.words[1], one.words[1]]))
    assert torch.equal(twice.pooled, one.pooled[[0, 0, 1, 1]])
    assert (one.to(dtype=torch.float64).words.dtype, one.to(dtype=torch.float64).pooled.dtype) == (torch.float64,) * 2
    assert plain[:1].pooled is plain.repeat(2).pooled is plain.to("cpu").pooled is None


@pytest.mark.parametrize("spherical", [False, True])
def test_a_mix_goes_from_one_to_the_other(spherical: bool) -> None:
    one, other = conditioning(0), conditioning(1)
    for share, end in ((0.0, one), (1.0, other)):
        made = mix(one, other, share, spherical=spherical)
        assert torch.allclose(made.words, end.words, atol=1e-6)
        assert torch.allclose(made.pooled, end.pooled, atol=1e-6)
    half, back = mix(one, other, 0.5, spherical=spherical), mix(other, one, 0.5, spherical=spherical)
    assert torch.allclose(half.words, back.words, atol=1e-6)


def test_a_linear_mix_is_a_weighted_sum() -> None:
    one, other = conditioning(0), conditioning(1)
    assert torch.allclose(mix(one, other, 0.25).words, 0.75 * one.words + 0.25 * other.words, atol=1e-6)


def test_a_spherical_mix_keeps_lengths_and_divides_the_angle() -> None:
    one, other = (F.normalize(conditioning(seed).words, dim=-1) for seed in (0, 1))
    made = slerp(one, other, 0.25)
    assert torch.allclose(made.norm(dim=-1), torch.ones(2, 3), atol=1e-5)
    angle = torch.acos((one * other).sum(-1))
    assert torch.allclose(torch.acos((one * made).sum(-1)), 0.25 * angle, atol=1e-4)


def test_spherical_by_hand() -> None:
    right, up = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    half = math.sqrt(2)
    assert torch.allclose(slerp(right, up, 0.5), torch.tensor([half, half]))
    assert torch.allclose(slerp(right, 2 * right, 0.5), torch.tensor([3.0, 0.0]))
    assert torch.allclose(slerp(right, -right, 0.25), torch.tensor([1.0, 0.0]))
    assert torch.equal(slerp(torch.zeros(2), torch.zeros(2), 0.5), torch.zeros(2))


def test_only_as_many_chunks_can_be_mixed() -> None:
    with pytest.raises(UsageError, match="as many chunks"):
        mix(conditioning(0), conditioning(1, positions=6))
