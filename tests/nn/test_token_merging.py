"""Merged tokens are means of what they own, and unmerging gives every token its owner's answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise.nn.attention import SpatialTransformer
from fromnoise.nn.token_merging import Merging, merging
from tests.tiny import randomise

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
SHARES = st.floats(0, 0.75)


def tokens(size: tuple[int, int], batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, size[0] * size[1], 5, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(size=SIZES, share=SHARES, seed=st.integers(0, 99))
def test_as_many_go_as_asked_and_every_merged_token_owns_some(size: tuple[int, int], share: float, seed: int):
    x = tokens(size, seed=seed)
    found = merging(x, size, share)
    stays = -(-size[0] // 2) * -(-size[1] // 2)
    removed = min(int(x.shape[1] * share), x.shape[1] - stays)
    if removed == 0:
        assert found is None
        return
    assert found is not None
    assert found.count == x.shape[1] - removed
    assert found.merge(x).shape == (2, found.count, 5)
    for owner in found.owner:
        assert sorted(set(owner.tolist())) == list(range(found.count))


@settings(max_examples=60, deadline=None)
@given(size=SIZES, share=st.floats(0.2, 0.75), seed=st.integers(0, 99))
def test_merging_again_what_was_unmerged_changes_nothing(size: tuple[int, int], share: float, seed: int):
    x = tokens(size, seed=seed)
    found = merging(x, size, share)
    if found is None:
        return
    merged = found.merge(x)
    assert torch.allclose(found.merge(found.unmerge(merged)), merged, atol=1e-6)
    # A mean keeps the sum over what it stands for.
    assert torch.allclose(found.unmerge(merged).sum(1), x.sum(1), atol=1e-5)


def test_unmerging_gives_each_token_its_owners():
    found = Merging(torch.tensor([[1, 0, 1]]), 2)
    x = torch.tensor([[[1.0], [5.0], [3.0]]])
    assert found.merge(x).flatten().tolist() == [5.0, 2.0]
    assert found.unmerge(found.merge(x)).flatten().tolist() == [2.0, 5.0, 2.0]


def test_the_most_alike_go_first():
    x = tokens((4, 4), batch=1)
    x[0, 5] = 3 * x[0, 10]  # of one direction with the stay of the last cell
    found = merging(x, (4, 4), 1 / 16)
    assert found is not None
    assert found.owner[0, 5] == found.owner[0, 10]
    assert found.count == 15


def test_the_order_of_what_stays_alone_is_kept():
    x = tokens((4, 6))
    found = merging(x, (4, 6), 0.25)
    assert found is not None
    same = (found.unmerge(found.merge(x)) == x).all(2)
    alone = torch.stack([torch.bincount(owner, minlength=found.count)[owner] == 1 for owner in found.owner])
    assert torch.equal(same, alone)


@torch.no_grad()
def test_a_share_of_nothing_is_bit_equal_and_more_is_near():
    layer = randomise(SpatialTransformer(16, 2, 8, 4), spread=0.1)
    x, words = torch.randn(2, 16, 6, 6), torch.randn(2, 3, 8)
    exact = layer(x, words)
    assert torch.equal(layer(x, words, merge=0.0), exact)
    assert torch.equal(layer(x, words, merge=0.001), exact)  # not one whole token
    apart = [float((layer(x, words, merge=share) - exact).norm() / exact.norm()) for share in (0.1, 0.7)]
    assert 0 < apart[0] < apart[1] < 0.5


@torch.no_grad()
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_equal_tokens_lose_nothing(share: float):
    layer = randomise(SpatialTransformer(16, 2, 8, 4), spread=0.1)
    x, words = torch.randn(1, 16, 1, 1).expand(1, 16, 4, 4).contiguous(), torch.randn(1, 3, 8)
    assert torch.allclose(layer(x, words, merge=share), layer(x, words), atol=1e-5)
