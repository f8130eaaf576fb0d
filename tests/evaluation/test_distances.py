from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from fromnoise.evaluation.distances import fid, frechet, gap_closed, kid_of_pairs, mean_distance, nearest, squared_mmd


def normal(count: int, features: int, seed: int) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def slow_squared_mmd(x: Tensor, y: Tensor) -> float:
    """The estimate's definition, pair by pair."""

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a.double() @ b.double()) / len(a) + 1) ** 3

    def within(z: Tensor) -> float:
        pairs = [kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(a, b) for a in x for b in y]
    return within(x) + within(y) - 2 * sum(across) / len(across)


def test_squared_mmd_is_its_definition() -> None:
    x, y = normal(7, 5, 0), normal(9, 5, 1) + 0.3
    assert float(squared_mmd(x, y)) == pytest.approx(slow_squared_mmd(x, y), rel=1e-9)


def test_squared_mmd_in_one_dimension_is_a_sum_of_squared_moment_differences() -> None:
    """(xy + 1)^3 = 1 + 3xy + 3x^2y^2 + x^3y^3; N(0, 1) and N(1, 1) differ by 1, 1 and 4 in their first moments."""
    x, y = normal(4000, 1, 2), normal(4000, 1, 3) + 1
    assert float(squared_mmd(x, y)) == pytest.approx(3 + 3 + 16, rel=0.1)


def test_copies_of_pictures_are_no_nearer_than_other_pictures_of_their_kind() -> None:
    """The plain estimate, which takes copies for independent samples, falls below zero for them."""
    clouds = [normal(60, 8, seed) for seed in range(30)]
    found = [kid_of_pairs(x, x + 0.01, splits=10) for x in clouds]
    values = [each.value for each in found if each]
    assert abs(np.mean(values)) < 2.5 * np.std(values) / len(values) ** 0.5
    assert np.mean([float(squared_mmd(x, x + 0.01)) for x in clouds]) < 10 * min(0, np.mean(values)) - 0.05


def test_kid_of_pairs_sees_a_shift_repeats_itself_and_needs_four() -> None:
    x = normal(100, 8, 0)
    found = kid_of_pairs(x + 0.7, x)
    assert found is not None
    assert found.value > 3 * found.deviation
    assert found == kid_of_pairs(x + 0.7, x)
    assert found.subset_size == 50
    assert kid_of_pairs(x[:3], x[:3]) is None


def test_the_gap_closed_is_the_share_of_the_way() -> None:
    before, target = normal(4000, 3, 0), normal(4000, 3, 1) + 4
    way = target.mean(0) - before.mean(0)
    for share in (0.0, 0.7, -0.5):
        assert gap_closed(before, before + share * way, target) == pytest.approx(share, abs=1e-3)


def test_few_pictures_of_the_target_itself_close_the_gap() -> None:
    before, target = normal(40, 48, 0), normal(40, 48, 1) + 1
    plain = [float(((normal(16, 48, seed) + 1).mean(0) - target.mean(0)).norm()) for seed in range(2, 22)]
    squares = [mean_distance(normal(16, 48, seed) + 1, target) ** 2 for seed in range(2, 22)]
    assert min(plain) > 1, "the noise of the means alone, which a plain distance would count"
    assert sum(squares) / len(squares) < 0.7
    assert gap_closed(before, normal(16, 48, 50) + 1, target) > 0.7


def test_frechet_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 1.0]).double()
    shift = torch.tensor([1.0, 0.0, -2.0]).double()
    expected = 5 + float(((a.sqrt() - b.sqrt()) ** 2).sum())
    assert frechet(shift, a.diag(), torch.zeros(3).double(), b.diag()) == pytest.approx(expected)


def test_frechet_distance_agrees_with_scipys_matrix_root() -> None:
    x, y = normal(50, 6, 0).double(), (normal(50, 6, 1) @ normal(6, 6, 2)).double()
    one, other = torch.cov(x.T), torch.cov(y.T)
    root = scipy.linalg.sqrtm((one @ other).numpy()).real
    expected = float(x.mean(0).sub(y.mean(0)).square().sum() + one.trace() + other.trace()) - 2 * np.trace(root)
    assert frechet(x.mean(0), one, y.mean(0), other) == pytest.approx(expected, rel=1e-9)


def test_fid_needs_many_pictures_and_few_features() -> None:
    assert fid(normal(1999, 4, 0), normal(2000, 4, 1)) is None
    assert fid(normal(2000, 4, 0), normal(2000, 4, 1)) == pytest.approx(0, abs=0.02)
    with pytest.raises(ValueError, match="49 features"):
        fid(normal(2000, 49, 0), normal(2000, 49, 1))


def test_nearest_is_the_least_distance() -> None:
    x, y = normal(5, 3, 0), normal(11, 3, 1)
    assert nearest(x, y).tolist() == pytest.approx([min(float((a - b).norm()) for b in y) for a in x], rel=1e-5)
