"""How far drawn pictures are from real ones, as clouds of judge features (N, D) and one by one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.runtime.seeds import generator

FID_LEAST = 2000
"""Pictures needed on both sides before a Frechet distance says anything."""

FID_FEATURES = 48
"""Features it is taken on at most: covariances of more need more pictures."""


@dataclass(frozen=True)
class KernelDistance:
    """The mean over subsets and their standard deviation."""

    value: float
    deviation: float
    subsets: int
    subset_size: int


def kid_of_pairs(x: Tensor, y: Tensor, *, splits: int = 100, seed: int = 0) -> KernelDistance | None:
    """Kernel inception distance (Binkowski et al. 2018) of two clouds whose rows k show one thing.

    A drawing, say, and the picture it was to be. About 0 for clouds of one distribution, and as often negative. Rows
    that belong together are no independent samples, which the unbiased estimate takes for granted. So in each of
    `splits` random halvings one cloud's first half is held against the other's second half, and the reverse. With y for
    x as well it says how far equal clouds of this size seem apart. None for fewer than four rows.
    """
    half = len(x) // 2
    if half < 2:
        return None
    own = generator("kid of pairs", seed)
    orders = [torch.randperm(len(x), generator=own)[: 2 * half].split(half) for _ in range(splits)]
    values = torch.stack([squared_mmd(x[a], y[b]) / 2 + squared_mmd(x[b], y[a]) / 2 for a, b in orders])
    return KernelDistance(float(values.mean()), float(values.std()), splits, half)


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3)."""
    x, y = x.double(), y.double()
    within = _mean_of_pairs(polynomial_kernel(x, x)) + _mean_of_pairs(polynomial_kernel(y, y))
    return within - 2 * polynomial_kernel(x, y).mean()


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / D + 1)^3, (N, D) and (M, D) to (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def fid(x: Tensor, y: Tensor) -> float | None:
    """Frechet distance of the two clouds as Gaussians (Heusel et al. 2017); None below FID_LEAST pictures a side.

    Raises ValueError for more than FID_FEATURES features.
    """
    if x.shape[1] > FID_FEATURES:
        raise ValueError(f"{x.shape[1]} features; a Frechet distance is taken on at most {FID_FEATURES}")
    if min(len(x), len(y)) < FID_LEAST:
        return None
    return frechet(*_gaussian(x), *_gaussian(y))


def frechet(mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor) -> float:
    """|m - n|^2 + tr(C + D - 2 (C D)^(1/2)) (Dowson & Landau 1982); the root's trace is of C^(1/2) D C^(1/2)."""
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return float(((mean_x - mean_y) ** 2).sum() + cov_x.trace() + cov_y.trace() - 2 * cross)


def gap_closed(before: Tensor, after: Tensor, target: Tensor) -> float:
    """How much of the way from `before` to `target` a change went, by the means of the three clouds: 1 is all of it.

    Negative when it led away. The distances are those of the distributions that the clouds were drawn from, as far as
    they can be told from so few (`mean_distance`): the noise of the means neither hides nor makes a gap.
    """
    return 1 - mean_distance(after, target) / mean_distance(before, target)


def mean_distance(x: Tensor, y: Tensor) -> float:
    """The distance of two distributions' means, from clouds of them (N, D) and (M, D).

    The root of the unbiased estimate of its square, |x - y|^2 less what sampling adds to it, tr(C) / N + tr(D) / M; 0
    where that is negative.
    """
    between = (x.double().mean(0) - y.double().mean(0)).square().sum()
    noise = sum(each.double().var(0).sum() / len(each) for each in (x, y))
    return float((between - noise).clamp(min=0).sqrt())


def nearest(x: Tensor, y: Tensor) -> Tensor:
    """The distance from each row of x (N, D) to its nearest row of y, (N,)."""
    return torch.cdist(x, y).min(1).values


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.double().mean(0), torch.cov(x.double().T)


def _mean_of_pairs(kernel: Tensor) -> Tensor:
    """The mean over pairs of two different pictures."""
    n = len(kernel)
    return (kernel.sum() - kernel.trace()) / (n * (n - 1))
